"""Which results files the report puts side by side, and what a cell of it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.report.matrix import Matrix, build_matrix
from conformance.results.cases import read_results

from .sample_results import case, header, run, write

FEW = {**header()["environment"], "threads": 1}


def matrix_of(folder: Path, *heads: dict[str, Any], expected: tuple[str, ...] = ()) -> Matrix:
    """Return the matrix of one file for each of `heads`, each with one passed case."""
    paths = [
        write(folder / f"{place}.jsonl", [case("mobilenet"), run("mobilenet")], **head)
        for place, head in enumerate(heads)
    ]
    return build_matrix(map(read_results, paths), expected)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (("passed", "xfailed", "failed", "errored"), "failed"),
        (("passed", "errored", "xfailed"), "errored"),
        (("xfailed", "passed", "skipped"), "xfailed"),
        (("passed", "skipped"), "skipped"),
        (("passed",), "passed"),
    ],
)
def test_worst_case_is_the_verdict(tmp_path: Path, outcomes: tuple[str, ...], verdict: str) -> None:
    """A cell's verdict is the worst outcome of its cases; a model without cases was not run."""
    path = write(tmp_path / "a.jsonl", [case("vgg16", outcome=outcome) for outcome in outcomes])
    ((_, column),) = build_matrix([read_results(path)]).columns
    assert column.cell("vgg16").verdict == verdict
    assert column.cell("vgg19").verdict == "not run"


def test_columns_in_order_of_release(tmp_path: Path) -> None:
    """4.9.0 comes before 4.10.0, and an expected version without results has its empty column."""
    heads = [{"version": version} for version in ("4.10.0", "4.9.0")]
    matrix = matrix_of(tmp_path, *heads, expected=("4.9.0", "4.9.5"))
    assert [column.version for _, column in matrix.columns] == ["4.9.0", "4.9.5", "4.10.0"]
    assert [column.cell("mobilenet").verdict for _, column in matrix.columns] == [
        *("passed", "not run", "passed")
    ]


def test_machines_are_kept_apart(tmp_path: Path) -> None:
    """Files of another thread count are a group of their own, named by the machine."""
    matrix = matrix_of(tmp_path, {}, {"environment": FEW})
    assert [group.name for group in matrix.groups] == ["machine 1", "machine 2"]
    assert {group.machine for group in matrix.groups} == {"AVX2, 1 thread", "AVX2, 2 threads"}


def test_processors_of_the_same_features_are_kept_apart(tmp_path: Path) -> None:
    """Two processors that can do the same are two machines: their times can't be compared."""
    heads = [{"environment": {**FEW, "processor": name}} for name in ("AMD EPYC", "Intel Xeon")]
    matrix = matrix_of(tmp_path, *heads)
    assert {group.machine for group in matrix.groups} == {
        "AMD EPYC, AVX2, 1 thread",
        "Intel Xeon, AVX2, 1 thread",
    }
    assert matrix.notes == []


def test_other_questions_are_kept_apart(tmp_path: Path) -> None:
    """Files of other weights are a group of their own, named by them, on the same machine."""
    matrix = matrix_of(tmp_path, {}, {"weights": "imagenet"})
    names = {group.name for group in matrix.groups}
    assert names == {"weights synthetic", "weights imagenet"}


def test_order_of_cpu_features_is_no_other_machine(tmp_path: Path) -> None:
    """Two OpenCV builds that name one CPU's features in another order ran on one machine."""
    first, second = ({**FEW, "cpu": cpu} for cpu in ("SSE *AVX *FP16", "SSE *FP16 AVX"))
    matrix = matrix_of(tmp_path, {"environment": first}, {"version": "5", "environment": second})
    assert len(matrix.groups) == 1


def test_newest_of_two_is_used_and_the_other_named(tmp_path: Path) -> None:
    """Of two files of one version, engine and machine the later is taken, the earlier told."""
    heads = [{"created": f"2026-01-0{day}T00:00:00+00:00"} for day in (2, 1)]
    matrix = matrix_of(tmp_path, *heads)
    ((_, column),) = matrix.columns
    assert column.results is not None
    assert column.results.path.name == "0.jsonl"
    (note,) = matrix.notes
    assert "1.jsonl" in note.split("left out")[0]
    assert "0.jsonl" in note.split("left out")[1]


def test_two_pythons_are_two_columns(tmp_path: Path) -> None:
    """One version judged on two Pythons has two columns, told apart by the Python."""
    heads = [{"environment": {**FEW, "python": python}} for python in ("3.9.18", "3.11.7")]
    matrix = matrix_of(tmp_path, *heads)
    labels = {column.label for _, column in matrix.columns}
    assert labels == {"4.14.0 classic Python 3.9", "4.14.0 classic Python 3.11"}
