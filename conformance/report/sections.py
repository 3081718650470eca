"""What the report says, a function a section: data for its template, or None to leave it out.

A new section is one function here, its entry in SECTIONS, and page/<name>.html.j2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Callable, Optional

from conformance.results.costs import lines_of
from conformance.results.history import cost_history, history
from conformance.results.lines import Line
from conformance.results.outcomes import BAD, RANK, worst_first
from conformance.results.quantities import QUANTITIES
from conformance.results.times import Timing, recorded_costs
from conformance.tables import release

from .charts import MOST_ROUNDS, ratio, version_times
from .content import Data, Report
from .matrix import Matrix
from .operations import OFTEN, REGISTERED, VERDICTS
from .routes import MEANINGS, share_of
from .routes import VERDICTS as ROUTES

# More groups of failures than this are a list nobody reads; the cells still lead to all of them.
MOST_FAILURES = 200
# Nor are more images than this; the results file has all of them.
MOST_DISAGREEMENTS = 50
# Of a finding's models the plainest ones are named; `findings --format json` has all of them.
MOST_MODELS = 5


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


def routes(report: Report) -> Optional[Data]:
    """Which importer and engine conform on each model, and which is the best."""
    if not report.routes:
        return None
    share = share_of(report.generated.files) if report.generated else None
    return {"tables": report.routes, "share": share, "verdicts": ROUTES, "meanings": MEANINGS}


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
        {
            **dict(zip(("outcome", "model", "engine"), key)),
            "where": ", ".join(filter(None, key[2:4])),
            "places": places,
        }
        for key, places in found.items()
    ]
    entries.sort(key=lambda e: (-RANK.index(e["outcome"]), -len(e["places"])))
    shown = entries[:MOST_FAILURES]
    return {"entries": shown, "models": _by_model(shown), "more": len(entries[MOST_FAILURES:])}


def _by_model(entries: Iterable[Data]) -> list[Data]:
    """Return the entries of one model, outcome and engine together: they have mostly one cause."""
    names = ("outcome", "model", "engine", "where")
    found: dict[tuple[str, ...], list[Data]] = defaultdict(list)
    for entry in entries:
        found[tuple(entry[name] for name in names)].append(entry)
    models: list[Data] = []
    for key, members in found.items():
        versions = {place["column"].version for entry in members for place in entry["places"]}
        known = {"versions": sorted(versions, key=release), "entries": members}
        models.append({**dict(zip(names, key)), **known})
    return models


def operations(report: Report) -> Optional[Data]:
    """What generated models say of each operation, and their findings."""
    if report.generated is None:
        return None
    limits = {"most": MOST_MODELS, "often": OFTEN, "registered": REGISTERED}
    return {"generated": report.generated, "verdicts": VERDICTS, **limits}


def deviation(report: Report) -> Optional[Data]:
    """Deviation over noise floor: a table with a number a cell, and a chart a model."""
    runs = {
        model: [column.cell(model).runs for _, column in report.matrix.columns]
        for model in report.matrix.models
    }
    ratios = {model: [*map(_worst_ratio, cells)] for model, cells in runs.items() if any(cells)}
    return {"ratios": ratios} if ratios else None


def _worst_ratio(runs: Iterable[Line]) -> Optional[float]:
    """Return the greatest deviation over noise among a cell's runs, one for each variant."""
    return max((found for found in map(ratio, runs) if found is not None), default=None)


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
    across = bool(version_times(report))
    if not across and not report.timings and not report.comparisons:
        return None
    groups: dict[str, list[Timing]] = defaultdict(list)
    for timing in report.timings:
        groups[timing.group].append(timing)
    return {
        "groups": {name: _timing_table(timings) for name, timings in groups.items()},
        "across": across,
        "most_rounds": MOST_ROUNDS,
        "comparisons": report.comparisons,
        "costs": lines_of(report.costs),
        "quantities": QUANTITIES,
        "steps": cost_history(recorded_costs(report.timings), report.comparisons),
    }


def _timing_table(timings: Iterable[Timing]) -> list[Data]:
    by_model: dict[str, list[Timing]] = defaultdict(list)
    for timing in timings:
        by_model[timing.model].append(timing)
    rows = []
    for model, of_model in by_model.items():
        base = [t.median_ms for t in of_model if t.framework == "tensorflow"]
        for timing in of_model:
            times = timing.median_ms / base[-1] if base else None
            rows.append({"model": model, "timing": timing, "ratio": times})
    return rows


def accuracy(report: Report) -> Optional[Data]:
    """Accuracy on ImageNet, where it was evaluated."""
    found = report.accuracies
    recipes = {one.header["preprocess"]: one.header["recipe"] for one in found}
    return {"recipes": recipes, "most": MOST_DISAGREEMENTS} if found else None


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
    "routes": routes,
    "failures": failures,
    "operations": operations,
    "deviation": deviation,
    "layers": layers,
    "times": times,
    "accuracy": accuracy,
    "environment": environment,
}
TITLES = {**{name: name.capitalize() for name in SECTIONS}, "times": "Inference time"}
