"""The tutorial's chart of an evaluation."""

from __future__ import annotations

from pathlib import Path

from conformance.errors import ConformanceError
from conformance.report import charts
from conformance.report.html import vl_convert

from .evaluation import BATCHES_A_SHARD, Evaluation
from .files import header

_WIDTH = 720


def draw_evaluation(path: Path, found: Evaluation) -> None:
    """Draw the tutorial's chart of an evaluation: ms an image in both frameworks, by shard.

    Raises ConformanceError without the extra "report", or where `path` can't be written.
    """
    head, job = header(found.plan), found.plan.job
    who = {
        "opencv": f"OpenCV {head['opencv']} {head['engine']}",
        "tensorflow": f"TensorFlow {head['tensorflow']}",
    }
    rows = [
        {"iteration": number, "who": who[name], "ms": times[name]}
        for name in who
        for number, times in enumerate(found.times, 1)
    ]
    images = job.batch * BATCHES_A_SHARD
    title = f"{job.model}: ms an image in each shard of {images}, {head['cpu']}, 1 thread"
    spec = charts.with_rows(charts.iteration_chart(), rows, title, _WIDTH)
    picture = vl_convert().vegalite_to_png(spec, scale=2)
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise ConformanceError(f"{path}: can't be written ({error.strerror})") from error
