"""What the report says, a function a section: data for its template, or None to leave it out.

A new section is one function here, its entry in SECTIONS, and page/<name>.html.j2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from conformance.models import model_order
from conformance.results.comparisons import Compared
from conformance.results.evaluations import Accuracies
from conformance.results.gate import DEVIATION
from conformance.results.history import history
from conformance.results.lines import Line
from conformance.results.outcomes import BAD, RANK, worst_first
from conformance.results.times import Timing
from conformance.tables import release

from .accuracy import accuracy_data
from .matrix import Column, Group, Matrix

Data = dict[str, Any]
# More groups of failures than this are a list nobody reads; the cells still lead to all of them.
MOST_FAILURES = 200
# Of each benchmark's rounds the page shows at most the first ones.
MOST_ROUNDS = 200


@dataclass(frozen=True)
class Report:
    """All that is reported. notes: what the reader must know about files left out."""

    matrix: Matrix
    timings: list[Timing]
    notes: list[str]
    title: str
    created: str
    accuracies: Sequence[Accuracies] = ()
    comparisons: Sequence[Compared] = ()

    @property
    def models(self) -> list[str]:
        """The models of verdicts, times and evaluations, in the registry's order."""
        found = {*self.matrix.models, *(timing.model for timing in self.timings)}
        found |= {compared.model for compared in self.comparisons}
        found |= {evaluated.header["model"] for evaluated in self.accuracies}
        return sorted(found, key=model_order)

    @property
    def opencvs(self) -> list[tuple[str, str]]:
        """The OpenCV versions and engines of all of these, by release."""
        found = {(column.version, column.engine) for _, column in self.matrix.columns}
        found |= {(t.version, t.engine) for t in self.timings if t.framework == "opencv"}
        found |= {(one.header["opencv"], one.header["engine"]) for one in self.accuracies}
        return sorted(found, key=lambda pair: (release(pair[0]), pair[1]))


def number(value: object) -> Optional[float]:
    """Return a recorded number, None where it is missing or not finite (recorded as a string)."""
    return float(value) if isinstance(value, (int, float)) else None


def series(group: Group, column: Column, variant: str) -> str:
    """Return what tells a line in a chart from the others: engine, switches, Python, group."""
    return ", ".join(filter(None, (column.engine, variant, column.python, group.name)))


def case_name(case: Line) -> str:
    """Return a case's name without file and model, such as "softmax softmax_l1_sum"."""
    name, _, parameters = case["id"].split("::")[1].rstrip("]").partition("[")
    words = [p for p in parameters.split("-") if p != case["model"]]
    return " ".join([name.replace("test_", "", 1), *words]).strip()


def verdicts(report: Report) -> Optional[Data]:
    """The heat map, the totals and what changed from version to version."""
    matrix = report.matrix
    if not matrix.groups:
        return None
    cells = [column.cell(model) for _, column in matrix.columns for model in matrix.models]
    counts = sum((Counter(cell.counts) for cell in cells), Counter())
    steps = [(group, step) for group in matrix.groups for step in history(group.results)]
    return {
        "counts": worst_first(counts),
        "bad_models": bad_models(matrix),
        "steps": [{"group": group, "step": step} for group, step in steps if step.kind != "bits"],
    }


def bad_models(matrix: Matrix) -> list[str]:
    """Return the models with a cell that failed or errored."""
    return [
        model
        for model in matrix.models
        if any(column.cell(model).verdict in BAD for _, column in matrix.columns)
    ]


def failures(report: Report) -> Optional[Data]:
    """Failed, errored and expected failures: the same case of several versions told once."""
    if not report.matrix.groups:
        return None
    found: dict[tuple[str, ...], list[Data]] = defaultdict(list)
    for index, (group, column) in enumerate(report.matrix.columns):
        for model in report.matrix.models:
            for case in column.cell(model).cases:
                if case["outcome"] in (*BAD, "xfailed"):
                    key = (case["outcome"], model, column.engine, group.name, case["id"])
                    found[key].append({"index": index, "column": column, "case": case})
    entries = [
        dict(zip(("outcome", "model", "engine", "group", "id"), key), places=places)
        for key, places in found.items()
    ]
    entries.sort(key=lambda e: (-RANK.index(e["outcome"]), -len(e["places"])))
    shown = entries[:MOST_FAILURES]
    return {"entries": shown, "models": _by_model(shown), "more": len(entries[MOST_FAILURES:])}


def _by_model(entries: Iterable[Data]) -> list[Data]:
    """Return the entries of one model, outcome and engine together: they have mostly one cause."""
    found: dict[tuple[str, ...], list[Data]] = defaultdict(list)
    for entry in entries:
        found[tuple(entry[k] for k in ("outcome", "model", "engine", "group"))].append(entry)
    models: list[Data] = []
    for (outcome, model, engine, group), members in found.items():
        versions = {place["column"].version for entry in members for place in entry["places"]}
        models.append(
            {
                "outcome": outcome,
                "model": model,
                "engine": engine,
                "where": ", ".join(filter(None, (engine, group))),
                "versions": sorted(versions, key=release),
                "entries": members,
            }
        )
    return models


def deviation_rows(matrix: Matrix) -> list[Data]:
    """Return a row for each run: how far its median input strays, beside the noise floor."""
    rows = []
    for group, column, model, run in _runs(matrix):
        # A logarithm has no place for 0, nor for what is not finite.
        shown = {p: number(run[p].get(DEVIATION)) or None for p in ("deviation", "noise")}
        rows.append({**_row(group, column, model, run), **shown, "ratio": _ratio(run)})
    return rows


def time_rows(matrix: Matrix) -> list[Data]:
    """Return a row for each run: the median milliseconds of its forwards."""
    return [{**_row(*place), "ms": place[-1]["median_ms"]} for place in _runs(matrix)]


def _runs(matrix: Matrix) -> Iterator[tuple[Group, Column, str, Line]]:
    for model in matrix.models:
        for group, column in matrix.columns:
            for run in column.cell(model).runs:
                yield group, column, model, run


def _row(group: Group, column: Column, model: str, run: Line) -> Data:
    name = series(group, column, run["variant"])
    return {"model": model, "version": column.version, "engine": column.engine, "series": name}


def deviation(report: Report) -> Optional[Data]:
    """Deviation over noise floor: a table with a number a cell, and a chart a model."""
    rows = deviation_rows(report.matrix)
    if not rows:
        return None
    models = _models(rows)
    ratios = {
        model: [_worst_ratio(column.cell(model).runs) for _, column in report.matrix.columns]
        for model in models
    }
    return {"ratios": ratios, "models": models}


def _worst_ratio(runs: Iterable[Line]) -> Optional[float]:
    """Return the greatest deviation over noise among a cell's runs, one for each variant."""
    ratios = [ratio for ratio in map(_ratio, runs) if ratio is not None]
    return max(ratios, default=None)


def _ratio(run: Line) -> Optional[float]:
    deviation, noise = (number(run[part].get(DEVIATION)) for part in ("deviation", "noise"))
    return deviation / noise if deviation is not None and noise else None


def _models(rows: Iterable[Data]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


def layers(report: Report) -> Optional[Data]:
    """Layer profiles: what models and columns have one."""
    have = []
    for index, (group, column) in enumerate(report.matrix.columns):
        for line in column.results.layers if column.results else []:
            label = ", ".join(filter(None, (column.label, line["variant"], group.name)))
            have.append((f"{index}/{line['variant']}", label, line["model"]))
    profiled = {model for _, _, model in have}
    models = [model for model in report.matrix.models if model in profiled]
    choices = {value: label for value, label, _ in reversed(have)}
    return {"choices": choices, "models": models} if have else None


def times(report: Report) -> Optional[Data]:
    """Inference time: OpenCV beside TensorFlow, by iteration, and across versions."""
    across = time_rows(report.matrix)
    if not across and not report.timings and not report.comparisons:
        return None
    groups: dict[str, list[Timing]] = defaultdict(list)
    for timing in report.timings:
        groups[timing.group].append(timing)
    return {
        "groups": {name: _timing_table(timings) for name, timings in groups.items()},
        "models": _models(across),
        "most_rounds": MOST_ROUNDS,
        "comparisons": report.comparisons,
    }


def _timing_table(timings: Iterable[Timing]) -> list[Data]:
    by_model: dict[str, list[Timing]] = defaultdict(list)
    for timing in timings:
        by_model[timing.model].append(timing)
    rows = []
    for model, of_model in by_model.items():
        base = [t.median_ms for t in of_model if t.framework == "tensorflow"]
        for timing in of_model:
            ratio = timing.median_ms / base[-1] if base else None
            rows.append({"model": model, "timing": timing, "ratio": ratio})
    return rows


def iteration_rows(timing: Timing) -> list[Data]:
    """Return a row for each round of a benchmark, as the tutorial's chart wants them."""
    return [
        {"model": timing.model, "who": timing.who, "iteration": n, "ms": float(f"{s * 1e3:.4g}")}
        for n, s in enumerate(timing.seconds[:MOST_ROUNDS], 1)
    ]


def median_rows(timings: Iterable[Timing]) -> list[Data]:
    """Return a row for each benchmark: its median."""
    return [{"model": t.model, "who": t.who, "ms": t.median_ms} for t in timings]


def accuracy(report: Report) -> Optional[Data]:
    """Accuracy on ImageNet, where it was evaluated."""
    return accuracy_data(report.accuracies)


def environment(report: Report) -> Optional[Data]:
    """Where the results come from: files, versions, machines, packs."""
    packs: dict[str, set[str]] = defaultdict(set)
    for _, column in report.matrix.columns:
        for model, key in (column.results.header["packs"] if column.results else {}).items():
            packs[model].add(key)
    judged = [model for model in report.matrix.models if model in packs]
    return {"packs": {model: sorted(packs[model]) for model in judged}}


SECTIONS: dict[str, Callable[[Report], Optional[Data]]] = {
    "verdicts": verdicts,
    "failures": failures,
    "deviation": deviation,
    "layers": layers,
    "times": times,
    "accuracy": accuracy,
    "environment": environment,
}
TITLES = {**{name: name.capitalize() for name in SECTIONS}, "times": "Inference time"}
