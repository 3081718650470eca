"""When did it change? A matrix of results files merged, model by model and version by version."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from conformance.tables import release
from conformance.verdict.expectations import Case, KnownFailure, match_known_failure

from .cases import Results, variant_of
from .comparisons import Compared
from .costs import Cost, lines_of
from .gate import DEVIATION
from .lines import Line
from .outcomes import BAD
from .quantities import QUANTITIES, Quantity

_EXPECTED = "xfailed"
Verdict = list[tuple[str, str]]
# A change of DEVIATION by more than this factor is told.
FACTOR = 2.0


@dataclass(frozen=True)
class Step:
    """A change between two neighbouring versions.

    engine: as cases.variant_of says it. kind: verdict, deviation, bits, or the title of a cost.
    """

    model: str
    engine: str
    kind: str
    before: str
    version: str
    detail: str


def history(matrix: Iterable[Results], factor: float = FACTOR) -> list[Step]:
    """Return, by model and engine, each version at which something changed from the one before.

    bits: the first version with other output bits, and how many later ones change them again.
    """
    by_engine: dict[str, list[Results]] = defaultdict(list)
    for results in matrix:
        by_engine[variant_of(results.header)].append(results)
    steps: list[Step] = []
    for engine, line in sorted(by_engine.items()):
        line.sort(key=lambda results: release(results.header["opencv"]["version"]))
        for model in _models(line):
            steps += _model_history(model, engine, line, factor)
    return steps


def cost_history(costs: Iterable[Cost], comparisons: Iterable[Compared]) -> list[Step]:
    """Return each version at which a cost changed by more than its limit from the one before.

    costs: recorded version by version. comparisons: of wheels in turn, which say it more surely.
    """
    steps = [step for line in lines_of(costs) for step in _cost_steps(line)]
    for one in comparisons:
        if one.changed:
            before, _, _ = one.first.partition(" ")
            version, _, engine = one.second.partition(" ")
            low, high = one.interval or (math.nan, math.nan)
            shown = f"{_rise(one.quantity, *one.sides)}, shown: {low:.3f} to {high:.3f}"
            detail = f"{shown}; {one.group}; {one.file}"
            steps.append(Step(one.model, engine, one.quantity.title, before, version, detail))
    return steps


def _cost_steps(line: Sequence[Cost]) -> Iterator[Step]:
    for before, after in zip(line, line[1:]):
        for quantity in QUANTITIES:
            old, new = (cost.values[quantity.key] for cost in (before, after))
            if old and new and not 1 / quantity.limit <= new / old <= quantity.limit:
                detail = f"{_rise(quantity, old, new)}; {after.group}"
                place = after.model, after.engine, quantity.title, before.version, after.version
                yield Step(*place, detail)


def _rise(quantity: Quantity, old: float, new: float) -> str:
    return f"{old:.1f} -> {new:.1f} {quantity.unit} (x {new / old:.2f})"


def _models(line: Sequence[Results]) -> list[str]:
    return sorted({case["model"] for results in line for case in results.cases})


def _model_history(
    model: str, engine: str, line: Sequence[Results], factor: float
) -> Iterator[Step]:
    have = [results for results in line if any(c["model"] == model for c in results.cases)]
    rebits: list[tuple[str, str]] = []
    for before, after in zip(have, have[1:]):
        older, newer = (r.header["opencv"]["version"] for r in (before, after))
        was, now = (_verdict(r, model) for r in (before, after))
        if was != now:
            yield Step(model, engine, "verdict", older, newer, _change(was, now))
        old, new = (_run(r, model) for r in (before, after))
        if old is None or new is None:
            continue
        grown = _growth(old, new)
        if not 1 / factor <= grown <= factor:
            a, b = (float(r["deviation"][DEVIATION]) for r in (old, new))
            detail = f"{DEVIATION} {a:.1e} -> {b:.1e} (x {grown:.2g})"
            yield Step(model, engine, "deviation", older, newer, detail)
        if old["outputs_sha256"] != new["outputs_sha256"]:
            rebits.append((older, newer))
    if rebits:
        later = ", ".join(after for _, after in rebits[1:])
        detail = f"other bits; again at {later}" if later else "other bits"
        yield Step(model, engine, "bits", rebits[0][0], rebits[0][1], detail)


def _verdict(results: Results, model: str) -> Verdict:
    """Return outcome and test of each case that did not pass."""
    return sorted(
        (c["outcome"], c["id"].split("::")[1])
        for c in results.cases
        if c["model"] == model and c["outcome"] in (*BAD, _EXPECTED)
    )


def _change(was: Verdict, now: Verdict) -> str:
    """Return both verdicts in words; tests by their functions' names, where these tell the two."""
    short = [_words([(o, test.split("[")[0]) for o, test in verdict]) for verdict in (was, now)]
    return " -> ".join(short if short[0] != short[1] else map(_words, (was, now)))


def _words(verdict: Verdict) -> str:
    bad = {
        outcome: ", ".join(sorted({test for o, test in verdict if o == outcome})) for outcome in BAD
    }
    expected = sum(outcome == _EXPECTED for outcome, _ in verdict)
    words = [f"{tests} {outcome}" for outcome, tests in bad.items() if tests] or ["passed"]
    return "; ".join(words + ([f"{expected} known failures"] if expected else []))


def _run(results: Results, model: str) -> Optional[Line]:
    found = [run for run in results.runs if run["model"] == model and not run["variant"]]
    return found[0] if found else None


def _growth(old: Line, new: Line) -> float:
    was, now = (float(run["deviation"][DEVIATION]) for run in (old, new))
    return now / was if was else (1.0 if not now else float("inf"))


def not_run(expected: Iterable[str], matrix: Iterable[Results]) -> list[str]:
    """Return the expected OpenCV versions of which the matrix has no results."""
    have = {release(results.header["opencv"]["version"]) for results in matrix}
    return [version for version in expected if release(version) not in have]


def unmatched(entries: Sequence[KnownFailure], matrix: Iterable[Results]) -> list[KnownFailure]:
    """Return the known failures that expect none of the matrix's cases to fail.

    Entries for other models, or another graph, importer, engine, target, Keras or switches than the
    matrix ran are left out.
    """
    matrix = list(matrix)
    cases = [case_of(results.header, line) for results in matrix for line in results.cases]
    used = {match_known_failure(entries, case) for case in cases}
    asked = [e for e in entries if any(_asked(e, case) for case in cases)]
    return [entry for entry in asked if entry not in used]


def _asked(entry: KnownFailure, case: Case) -> bool:
    axes = all(getattr(case, axis) == value for axis, value in entry.axes)
    return axes and case.model in entry.models


def case_of(header: Line, line: Line) -> Case:
    """Return a case line of a results file as known failures are matched against."""
    return Case(
        model=line["model"],
        stage=line["stage"],
        test=line["id"].split("::")[1].split("[")[0],
        opencv=header["opencv"]["version"],
        python=header["environment"]["python"],
        numpy=header["environment"]["numpy"],
        **{axis: header[axis] for axis in ("importer", "engine", "backend", "target", "graph")},
        cpu_disabled=tuple(header.get("cpu_disabled", ())),
        keras=header["keras"],
        switches=line.get("variant", ""),
        parameters=line["id"].partition("[")[2].removesuffix("]"),
    )
