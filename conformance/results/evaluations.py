"""The results of an evaluation on ImageNet: a summary, bad images, disagreements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from conformance.errors import ConformanceError

from .lines import EVALUATIONS, Line, read_lines


@dataclass(frozen=True)
class Accuracies:
    """A complete results file: its header and summary, bad images and disagreements."""

    path: Path
    header: Line
    summary: Line
    bad: list[Line]
    disagreements: list[Line]


def read_results(path: Path) -> Accuracies:
    """Return the results in `path`, every line checked; see read_lines."""
    lines = read_lines(path, EVALUATIONS)
    if lines[1]["kind"] != "summary":
        raise ConformanceError(f"{path}:2: no summary, so these are no results of an evaluation")
    bad, apart = ([x for x in lines if x["kind"] == kind] for kind in ("bad", "disagreement"))
    return Accuracies(path, lines[0], lines[1], bad, apart)


def read_all(paths: Iterable[Path]) -> list[Accuracies]:
    """Return the results in the files, by model and OpenCV version as the files are named."""
    return [read_results(path) for path in sorted(paths)]
