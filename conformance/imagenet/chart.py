"""The tutorial's chart of an evaluation."""

from __future__ import annotations

from pathlib import Path

from conformance.charts import draw, iteration_chart, vl_convert, with_rows
from conformance.processes.pool import process_pool

from .evaluation import BATCHES_A_SHARD, Evaluation
from .files import header


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
        {"who": who[name], "iterations": [times[name] for times in found.times]} for name in who
    ]
    images = job.batch * BATCHES_A_SHARD
    title = f"{job.model}: ms an image in each shard of {images}, {head['cpu']}, 1 thread"
    vl_convert()  # where it is missing no process need be started
    # In a process of its own: Vega's engine aborts where it finds no memory, and is a picture only.
    with process_pool(1, str(path)) as pool:
        pool.submit(draw, with_rows(iteration_chart(), rows, title), path, str(path)).result()
