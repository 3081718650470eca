"""The data that the page's script shows on demand, small: what repeats is written once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from conformance.charts import coloured, layer_chart
from conformance.results.lines import Line, number
from conformance.results.routes import Judged

from .charts import CHARTS
from .content import Data, Report, case_name
from .matrix import Cell, Column, Matrix
from .operations import Table
from .routes import Table as Routes

# A reason longer than this is cut in the page; the results file has all of it.
LONGEST_REASON = 1500


# Values written once, in order of their first use, each with its place; tuples become JSON lists.
Places = dict[Any, int]


def _place(places: Places, value: Any) -> int:
    return places.setdefault(value, len(places))


def payload(report: Report) -> Data:
    """Return what the page's script needs, ready for JSON."""
    matrix = report.matrix
    texts: Places = {}
    arrays: Places = {}
    cells = [
        {
            model: _cell(column.cell(model), texts)
            for model in matrix.models
            if model in column.cells
        }
        for _, column in matrix.columns
    ]
    layers = list(_layers(matrix, arrays))
    routes = [_routes(table, texts) for table in report.routes]
    shown = [(name, chart) for name, chart in CHARTS.items() if chart.caption is not None]
    return {
        "columns": [_column(column, group.name) for group, column in matrix.columns],
        "models": report.models,
        "cells": cells,
        "texts": list(texts),
        "layers": layers,
        "arrays": list(arrays),
        # The script itself makes the rows of a layer profile.
        "charts": {"layers": coloured(layer_chart()), **{n: coloured(c.spec) for n, c in shown}},
        "routes": routes,
        "operations": [_operations(table) for table in report.tables],
        "rows": {name: chart.rows(report) for name, chart in shown},
    }


def _operations(table: Table) -> list[str]:
    """Return what each column of a table of operations is of."""
    importer = f"importer {table.importer}"
    return [" ".join(filter(None, ("OpenCV", *c))) + f", {importer}" for c in table.columns]


def _routes(table: Routes, texts: Places) -> Data:
    """Return the versions, and of each model and version the routes: see _route."""
    rows = {
        model: [[_route(*pair, texts) for pair in zip(cell.routes, cell.columns)] for cell in cells]
        for model, cells in table.rows.items()
    }
    return {"versions": table.versions, "name": table.name, "rows": rows}


def _route(one: Judged, column: int, texts: Places) -> list[Any]:
    """Return [title, state, deviation, noise, ms, column, bad cases, reason of the first]."""
    figures = [_short(value) for value in (one.deviation, one.noise, one.ms)]
    reason = _place(texts, shorten(one.reason)) if one.reason else None
    words = [_place(texts, text) for text in (one.route.title, one.state)]
    return [*words, *figures, column, len(one.bad), reason]


def _column(column: Column, group: str) -> Data:
    header = column.results.header if column.results else {}
    return {
        "label": column.label,
        "group": group,
        "version": column.version,
        "engine": column.engine,
        "file": column.results.path.name if column.results else "",
        "distribution": header.get("opencv", {}).get("distribution", ""),
    }


def _cell(cell: Cell, texts: Places) -> Data:
    return {
        "verdict": cell.verdict,
        "cases": [_case(case, texts) for case in cell.cases],
        "runs": [[r["variant"], r["median_ms"], r["peak_mib"]] for r in cell.runs],
    }


def _case(case: Line, texts: Places) -> list[Any]:
    """Return [outcome, test, metric, observed, allowed, reason, command] without empty ends."""
    row: list[Any] = [_place(texts, case["outcome"]), _place(texts, case_name(case))]
    row += [_place(texts, case["metric"]) if "metric" in case else None]
    row += [_short(case.get("observed")), _short(case.get("allowed"))]
    reason = shorten(case.get("reason", ""))
    row += [_place(texts, text) if text else None for text in (reason, case.get("command", ""))]
    while row[-1] is None:
        row.pop()
    return row


def shorten(reason: str) -> str:
    """Return `reason` at a length that a page can bear, saying so where it was cut."""
    if len(reason) <= LONGEST_REASON:
        return reason
    return reason[:LONGEST_REASON].rstrip() + "\n… (cut; the results file has all of it)"


def _short(value: object, digits: int = 4) -> Any:
    """Return a number with `digits` significant digits, anything else as it is."""
    found = number(value)
    return value if found is None else float(f"{found:.{digits}g}")


def _layers(matrix: Matrix, arrays: Places) -> Iterable[Data]:
    for index, (_, column) in enumerate(matrix.columns):
        for line in column.results.layers if column.results else []:
            yield {
                "column": index,
                "model": line["model"],
                "variant": line["variant"],
                **{name: _place(arrays, tuple(line[name])) for name in ("nodes", "ops")},
                **{
                    name: _place(arrays, tuple(_short(value, 3) for value in line[name]))
                    for name in ("observed", "noise", "allowed")
                },
            }
