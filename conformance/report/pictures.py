"""The report's charts as PNG files, drawn from the same specifications as the page's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.errors import ConformanceError

from . import charts
from .accuracy import evaluation_rows
from .html import vl_convert
from .matrix import NAMES, SYMBOLS, Matrix
from .sections import Data, Report, deviation_rows, iteration_rows, median_rows, time_rows

_WIDTH = 720


def write_pictures(report: Report, folder: Path) -> list[Path]:
    """Write the charts as pictures into `folder` and return their paths.

    Raises ConformanceError where the extra "report" is missing or `folder` can't be written.
    """
    converter = vl_convert()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, spec in pictures(report):
            path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}.png"
            path.write_bytes(converter.vegalite_to_png(spec, scale=2))
            written.append(path)
    except OSError as error:
        raise ConformanceError(f"--png {folder}: can't be written ({error.strerror})") from error
    return written


def pictures(report: Report) -> Iterator[tuple[str, charts.Spec]]:
    """Give each picture's name and specification.

    verdicts; deviation and versions of each model; inference-time of all models, and of each
    model against the iteration, which is the tutorial's chart.
    """
    matrix = report.matrix
    if matrix.models:
        chart = charts.verdict_chart(NAMES)
        yield "verdicts", charts.with_rows(chart, _verdict_rows(matrix), "Verdicts", _WIDTH)
    for name, chart, rows in (
        ("deviation", charts.deviation_chart(), deviation_rows(matrix)),
        ("versions", charts.version_time_chart(), time_rows(matrix)),
    ):
        for model, of_model in _by(rows, "model"):
            title = f"{model}: {chart['description']}"
            yield f"{name}-{model}", charts.with_rows(chart, of_model, title, _WIDTH)
    yield from _time_pictures(report)
    for cpu, rows in _by(evaluation_rows(report.accuracies), "group"):
        title = f"Mean inference time on ImageNet, {cpu}"
        chart = charts.with_rows(charts.evaluation_chart(), rows, title, _WIDTH)
        yield f"imagenet-time-{cpu}", chart


def _time_pictures(report: Report) -> Iterator[tuple[str, charts.Spec]]:
    groups = list(dict.fromkeys(timing.group for timing in report.timings))
    for group in groups:
        timings = [timing for timing in report.timings if timing.group == group]
        suffix = f"-{group}" if len(groups) > 1 else ""
        title = f"Median inference time, {group}"
        chart = charts.median_chart()
        yield (
            f"inference-time{suffix}",
            charts.with_rows(chart, median_rows(timings), title, _WIDTH),
        )
        rows = [row for timing in timings for row in iteration_rows(timing)]
        for model, of_model in _by(rows, "model"):
            title = f"{model}: time of each iteration, {group}"
            spec = charts.with_rows(charts.iteration_chart(), of_model, title, _WIDTH)
            yield f"inference-time-{model}{suffix}", spec


def _by(rows: Sequence[Data], key: str) -> Iterator[tuple[str, list[Data]]]:
    for value in dict.fromkeys(row[key] for row in rows):
        yield value, [row for row in rows if row[key] == value]


def _verdict_rows(matrix: Matrix) -> list[Data]:
    return [
        {
            "model": model,
            "column": f"{column.label} {group.name}".strip(),
            "verdict": NAMES[column.cell(model).verdict],
            "symbol": SYMBOLS[column.cell(model).verdict],
        }
        for model in matrix.models
        for group, column in matrix.columns
    ]
