"""The report's charts, a table: the page draws them with its filters, --png makes pictures of them.

A new chart is its specification in conformance/charts.py, its entry in CHARTS, and its place in a
section's template.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

from conformance import charts
from conformance.results.costs import lines_of
from conformance.results.gate import DEVIATION
from conformance.results.lines import Line, number
from conformance.results.quantities import QUANTITIES
from conformance.results.routes import SINGLY
from conformance.results.times import Timing

from .content import Data, Report
from .matrix import NAMES, SYMBOLS, Column, Group, Matrix
from .routes import VERDICTS as ROUTES
from .routes import picture_rows

# Of each benchmark's rounds the charts show at most the first ones.
MOST_ROUNDS = 200


@dataclass(frozen=True)
class Chart:
    """A chart, or one for each value of the columns `by` of its rows; these fill {braces}."""

    spec: charts.Spec
    rows: Callable[[Report], list[Data]]
    by: tuple[str, ...]  # of "model" and "group", by which the page's script chooses rows, too
    caption: Optional[str]  # in the page; None for one that is a picture only
    title: str  # of the picture
    file: str  # its name; {others}: the group, where there are several

    def panels(self, report: Report) -> Iterator[tuple[Data, list[Data]]]:
        """Give the columns' values of each chart, and its rows."""
        found: dict[tuple[str, ...], list[Data]] = {}
        for row in self.rows(report):
            found.setdefault(tuple(row[name] for name in self.by), []).append(row)
        for values, rows in found.items():
            yield dict(zip(self.by, values)), rows


def _deviations(report: Report) -> list[Data]:
    """Return a row for each run: how far its median input strays, beside the noise floor."""
    rows = []
    for group, column, model, run in _runs(report.matrix):
        # A logarithm has no place for 0, nor for what is not finite.
        shown = {p: number(run[p].get(DEVIATION)) or None for p in ("deviation", "noise")}
        rows.append({**_row(group, column, model, run), **shown, "ratio": ratio(run)})
    return rows


def version_times(report: Report) -> list[Data]:
    """Return a row for each run: the median milliseconds of its forwards."""
    return [{**_row(*place), "ms": place[-1]["median_ms"]} for place in _runs(report.matrix)]


def _runs(matrix: Matrix) -> Iterator[tuple[Group, Column, str, Line]]:
    for model in matrix.models:
        for group, column in matrix.columns:
            for run in column.cell(model).runs:
                yield group, column, model, run


def _row(group: Group, column: Column, model: str, run: Line) -> Data:
    # What tells a line from the others: engine, switches, Python, group.
    name = ", ".join(filter(None, (column.engine, run["variant"], column.python, group.name)))
    return {"model": model, "version": column.version, "engine": column.engine, "series": name}


def ratio(run: Line) -> Optional[float]:
    """Return how far a run's median input strays over the noise floor, None where unknown."""
    deviation, noise = (number(run[part].get(DEVIATION)) for part in ("deviation", "noise"))
    return deviation / noise if deviation is not None and noise else None


def _iterations(report: Report) -> list[Data]:
    """Return a row for each benchmark: its rounds in ms, as the tutorial's chart wants them."""
    return [
        {**_timed(one), "iterations": [float(f"{s * 1e3:.4g}") for s in one.seconds[:MOST_ROUNDS]]}
        for one in report.timings
    ]


def _medians(report: Report) -> list[Data]:
    return [{**_timed(timing), "ms": timing.median_ms} for timing in report.timings]


def _costs(report: Report) -> list[Data]:
    """Return a row for each cost of each version, as so many times that of the line's first one."""
    rows = []
    for line in lines_of(report.costs):
        for quantity in QUANTITIES:
            known = [(cost, value) for cost in line if (value := cost.values[quantity.key])]
            for cost, value in known:
                place = {"model": cost.model, "group": f"{cost.group}, {cost.line}"}
                of = {**place, "version": cost.version, "engine": cost.engine}
                shown = {"value": value, "unit": quantity.unit, "times": value / known[0][1]}
                rows.append({**of, "series": quantity.title, **shown})
    return rows


def _timed(timing: Timing) -> Data:
    """Return what a timing's rows are chosen by; only OpenCV's have a version to choose."""
    row = {"model": timing.model, "who": timing.who, "group": timing.group}
    chosen = {"version": timing.version, "engine": timing.engine}
    return {**row, **(chosen if timing.framework == "opencv" else {})}


def _verdicts(report: Report) -> list[Data]:
    matrix = report.matrix
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


def _routes(report: Report) -> list[Data]:
    return list(picture_rows(report.routes))


def _evaluations(report: Report) -> list[Data]:
    """Return the chart's rows, mean ms an image; TensorFlow's once for each model, CPU, version."""
    rows: dict[tuple[str, str, str], Data] = {}
    for found in report.accuracies:
        head = found.header
        model, cpu = head["model"], head["cpu"]
        opencv = f"OpenCV {head['opencv']} {head['engine']}"
        place = {"version": head["opencv"], "engine": head["engine"]}
        theirs = f"TensorFlow {head['tensorflow']}"
        ms = {name: found.summary[name]["ms_an_image"] for name in ("opencv", "tensorflow")}
        row = {"model": model, "group": cpu}
        rows[model, cpu, opencv] = {**row, **place, "who": opencv, "ms": ms["opencv"]}
        rows[model, cpu, theirs] = {**row, "who": theirs, "ms": ms["tensorflow"]}
    return list(rows.values())


CHARTS = {
    "verdicts": Chart(
        charts.verdict_chart({name: verdict for verdict, name in NAMES.items()}),
        _verdicts,
        (),
        None,
        "Verdicts",
        "verdicts",
    ),
    "routes": Chart(
        charts.verdict_chart({**ROUTES, SINGLY: "series-1"}, width=80),
        _routes,
        (),
        None,
        "The best route, and how many others conform",
        "routes",
    ),
    "deviation": Chart(
        charts.deviation_chart(),
        _deviations,
        ("model",),
        "{model}",
        "{model}: deviation from float64 by OpenCV version",
        "deviation-{model}",
    ),
    "version_time": Chart(
        charts.version_time_chart(),
        version_times,
        ("model",),
        "{model}",
        "{model}: inference time by OpenCV version",
        "versions-{model}",
    ),
    "costs": Chart(
        charts.cost_chart(),
        _costs,
        ("group", "model"),
        "{model}: {group}",
        "{model}: cost by OpenCV version, {group}",
        "cost-{model}{others}",
    ),
    "medians": Chart(
        charts.bar_chart("median, ms", "median inference time of each framework"),
        _medians,
        ("group",),
        "Median of each",
        "Median inference time, {group}",
        "inference-time{others}",
    ),
    "iterations": Chart(
        charts.iteration_chart(),
        _iterations,
        ("group", "model"),
        "{model}: time of each iteration",
        "{model}: time of each iteration, {group}",
        "inference-time-{model}{others}",
    ),
    "evaluations": Chart(
        charts.bar_chart("mean ms an image", "mean inference time while evaluating on ImageNet"),
        _evaluations,
        ("group",),
        "Inference time while evaluating: {group}",
        "Mean inference time on ImageNet, {group}",
        "imagenet-time-{group}",
    ),
}
