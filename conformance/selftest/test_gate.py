"""The gate: what speaks against an upgrade, what is only told, and what can't be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.errors import ConformanceError
from conformance.results.cases import Results, read_results
from conformance.results.gate import Change, compare, is_regression

from .sample_results import case, run, write


def results(path: Path, *lines: dict[str, Any], **head: Any) -> Results:
    """Return the results of a file written and read."""
    return read_results(write(path, list(lines), **head))


def compared(tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[Change]:
    """Return what changed from the lines `old` to the lines `new`."""
    return compare(results(tmp_path / "old", *old), results(tmp_path / "new", *new))


def test_same_results_are_no_regression(tmp_path: Path) -> None:
    """A file compared with its like shows no change."""
    lines = [case("mobilenet"), run("mobilenet")]
    assert compared(tmp_path, lines, lines) == []


@pytest.mark.parametrize("outcome", ["failed", "errored"])
def test_newly_failing_is_a_regression(tmp_path: Path, outcome: str) -> None:
    """A case that passed and now fails or can't be judged speaks against the upgrade."""
    bad = case("mobilenet", outcome=outcome, reason="top1 is 0.3\nmore")
    changes = compared(tmp_path, [case("mobilenet")], [bad])
    assert [change.kind for change in changes] == ["newly failing"]
    assert changes[0].detail == f"passed -> {outcome}: top1 is 0.3"
    assert is_regression(changes)


def test_baseline_of_another_machine_judges_verdicts_alone(tmp_path: Path) -> None:
    """Packs rebuilt elsewhere, the same but for their bits, compare with a baseline, else never."""
    lines = [case("mobilenet"), run("mobilenet", 1e-4)]
    old = results(tmp_path / "old", *lines, packs={"mobilenet": "k1:elsewhere"})
    bad = [case("mobilenet", outcome="failed", reason="top1"), run("mobilenet", 9e-4)]
    new = results(tmp_path / "new", *bad, packs={"mobilenet": "k1:here"})
    assert [change.kind for change in compare(old, new, rebuilt=True)] == ["newly failing"]
    with pytest.raises(ConformanceError, match="different packs of mobilenet"):
        compare(old, new)
    other = results(tmp_path / "other", *bad, packs={"mobilenet": "k2:here"})
    with pytest.raises(ConformanceError, match="different packs of mobilenet"):
        compare(old, other, rebuilt=True)


def test_missing_case_is_a_regression(tmp_path: Path) -> None:
    """A case that is no longer there can't be taken for one that passes."""
    changes = compared(tmp_path, [case("mobilenet"), case("resnet50")], [case("mobilenet")])
    assert [(change.kind, change.model) for change in changes] == [("missing", "resnet50")]
    assert is_regression(changes)


def test_newly_passing_is_told(tmp_path: Path) -> None:
    """A repaired case is told and does not stop the upgrade."""
    changes = compared(tmp_path, [case("mobilenet", outcome="failed")], [case("mobilenet")])
    assert [change.kind for change in changes] == ["newly passing"]
    assert not is_regression(changes)


@pytest.mark.parametrize(
    ("now", "kinds"), [(3e-4, ["deviation grew"]), (1.5e-4, []), (0.0, ["deviation shrank"])]
)
def test_deviation_beyond_the_noise_is_told(tmp_path: Path, now: float, kinds: list[str]) -> None:
    """A deviation that moves by more than the noise floor is told, a smaller move is not."""
    changes = compared(tmp_path, [run("mobilenet", 1.2e-4)], [run("mobilenet", now)])
    assert [change.kind for change in changes] == kinds
    assert not is_regression(changes)


def test_different_packs_are_refused(tmp_path: Path) -> None:
    """Results of another pack of the same model answer another question."""
    old = results(tmp_path / "old", case("mobilenet"))
    new = results(tmp_path / "new", case("mobilenet"), packs={"mobilenet": "k1:other"})
    with pytest.raises(ConformanceError, match="different packs of mobilenet"):
        compare(old, new)


def test_packs_of_unjudged_models_do_not_matter(tmp_path: Path) -> None:
    """A pack that neither run judged by is no reason to refuse."""
    old = results(tmp_path / "old", case("mobilenet"))
    new = results(tmp_path / "new", case("mobilenet"), packs={"mobilenet": "k1:c1", "vgg16": "x"})
    assert compare(old, new) == []


@pytest.mark.parametrize("axis", ["importer", "graph", "weights"])
def test_another_axis_is_refused(tmp_path: Path, axis: str) -> None:
    """Only the OpenCV version, engine, target and CPU level may differ between the two files."""
    old = results(tmp_path / "old", case("mobilenet"))
    new = results(tmp_path / "new", case("mobilenet"), **{axis: "other"})
    with pytest.raises(ConformanceError, match=axis):
        compare(old, new)
