"""May we upgrade? Two results files compared, case by case and run by run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from conformance.errors import ConformanceError

from .cases import Results
from .lines import Line
from .outcomes import BAD

# What says how far a model strays: the tutorial's L1, the median over the inputs. The greatest one
# is often that of a single unstable input, which hides what happens to all the others.
DEVIATION = "softmax_l1_sum_median"


@dataclass(frozen=True)
class Change:
    """One difference. kind: one of KINDS. what: the case's or the run's id. detail: in words."""

    kind: str
    model: str
    what: str
    detail: str


# In the order of the report; True where the change is a regression.
KINDS = {
    "newly failing": True,
    "missing": True,
    "newly passing": False,
    "new case": False,
    "deviation grew": False,
    "deviation shrank": False,
}


def is_regression(changes: list[Change]) -> bool:
    """Return whether any of the changes speaks against the upgrade.

    A deviation that grew within what is allowed does not: past it, its case fails.
    """
    return any(KINDS[change.kind] for change in changes)


def compare(old: Results, new: Results, rebuilt: bool = False) -> list[Change]:
    """Return what changed from `old` to `new`, worst kind first.

    rebuilt: accept packs of the same request and versions that were built on another machine, as
    those of a baseline that is kept for long. Synthetic weights are calibrated in float32, so that
    another CPU gives other last bits: the verdicts of such packs are compared, the deviations not.
    Raises ConformanceError where the two were not asked the same: other packs, importer or graph.
    """
    _check_comparable(old, new, rebuilt)
    changes = [*_case_changes(old, new), *_deviation_changes(old, new)]
    return sorted(changes, key=lambda c: list(KINDS).index(c.kind))


def _check_comparable(old: Results, new: Results, rebuilt: bool) -> None:
    for axis in ("importer", "graph", "weights"):
        if old.header[axis] != new.header[axis]:
            raise ConformanceError(
                f"{old.path} and {new.path} can't be compared: {axis} {old.header[axis]!r} and "
                f"{new.header[axis]!r}"
            )
    before, after = (_judged_packs(results) for results in (old, new))
    both = sorted(before.keys() & after.keys())
    other = [m for m in both if not _same_pack(before[m], after[m], rebuilt)]
    if other:
        raise ConformanceError(
            f"{old.path} and {new.path} can't be compared: they were judged by different packs of "
            f"{', '.join(other)}; run both with the same --packs"
        )


def _judged_packs(results: Results) -> dict[str, str]:
    judged = {case["model"] for case in results.cases}
    return {model: key for model, key in results.header["packs"].items() if model in judged}


def _same_pack(old: str, new: str, rebuilt: bool) -> bool:
    """Compare two digests of a pack, "key:bits" (Manifest.digest)."""
    return old.split(":")[0] == new.split(":")[0] if rebuilt else old == new


def _by_id(results: Results) -> dict[str, Line]:
    return {case["id"]: case for case in results.cases}


def _case_changes(old: Results, new: Results) -> Iterator[Change]:
    before, after = _by_id(old), _by_id(new)
    for case_id, case in before.items():
        if case_id not in after:
            yield Change("missing", case["model"], case_id, f"was {case['outcome']}")
            continue
        yield from _outcome_change(case, after[case_id])
    for case_id in after.keys() - before.keys():
        case = after[case_id]
        kind = "new case" if case["outcome"] not in BAD else "newly failing"
        yield Change(kind, case["model"], case_id, case["outcome"])


def _outcome_change(before: Line, after: Line) -> Iterator[Change]:
    was_good, is_good = (case["outcome"] not in BAD for case in (before, after))
    if was_good == is_good:
        return
    kind = "newly passing" if is_good else "newly failing"
    detail = f"{before['outcome']} -> {after['outcome']}"
    if after.get("observed") is not None:
        detail += f", {after['metric']} {_number(after['observed'])}"
        detail += f" of {_number(after['allowed'])}"
    if not is_good and after.get("reason"):
        detail += f": {after['reason'].splitlines()[0]}"
    yield Change(kind, after["model"], after["id"], detail)


def _deviation_changes(old: Results, new: Results) -> Iterator[Change]:
    before = {(run["model"], run["variant"]): run for run in old.runs}
    for run in new.runs:
        earlier = before.get((run["model"], run["variant"]))
        model = run["model"]
        if earlier is None or old.header["packs"].get(model) != new.header["packs"].get(model):
            continue
        was, now = float(earlier["deviation"][DEVIATION]), float(run["deviation"][DEVIATION])
        if abs(now - was) <= run["noise"][DEVIATION]:
            continue
        kind = "deviation grew" if now > was else "deviation shrank"
        detail = f"{DEVIATION} {was:.2e} -> {now:.2e}, noise floor {run['noise'][DEVIATION]:.1e}"
        yield Change(kind, run["model"], run["model"], detail)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else str(value)
