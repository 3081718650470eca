"""Comparisons of two OpenCV wheels as ``bench --json`` keeps them, read for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Optional

from conformance.errors import ConformanceError
from conformance.processes.machine import on_threads

KIND = "opencv-comparison"


@dataclass(frozen=True)
class Compared:
    """A model on two wheels."""

    model: str
    first: str  # version and engine, as second
    second: str
    ms: tuple[float, float]  # of each in the median round
    ratio: float
    interval: Optional[tuple[float, float]]  # of the ratio, None with too few rounds
    rounds: int
    complete: bool  # whether no round is missing
    group: str
    file: str


def read_comparison(path: Path, document: dict[str, Any]) -> list[Compared]:
    """Return the comparisons in a file that have a round; raise ConformanceError for a bad one."""
    try:
        return [_compared(path, document, one) for one in document["comparisons"] if one["rounds"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConformanceError(
            f"{path}: no whole file of python -m conformance bench --json ({error!r})"
        ) from error


def _compared(path: Path, document: dict[str, Any], one: dict[str, Any]) -> Compared:
    rounds = [tuple(median(side["times_ms"]) for side in pair) for pair in one["rounds"]]
    first, second = one["rounds"][0]
    ordered = sorted(rounds, key=lambda pair: pair[1] / pair[0])
    low, high = one["interval"]
    return Compared(
        model=one["model"],
        first=f"{first['version']} {first['engine']}",
        second=f"{second['version']} {second['engine']}",
        ms=ordered[(len(ordered) - 1) // 2],
        ratio=float(one["ratio"]),
        interval=None if low is None or high is None else (low, high),
        rounds=len(rounds),
        complete=one["complete"],
        group=f"{on_threads(document['cpu'], first['threads'])}, batch {document['batch']}",
        file=path.name,
    )
