"""Comparisons of OpenCV wheels as ``bench --json`` keeps them, read for the report and history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Optional

from conformance.errors import ConformanceError
from conformance.opencv.timing import timing_of
from conformance.processes.machine import on_threads

from .costs import Cost
from .quantities import BY_KEY, QUANTITIES, WARM, Quantity

KIND = "opencv-comparison"
# 1 had the median of warm inferences alone, of two wheels.
SCHEMA = 2


@dataclass(frozen=True)
class Compared:
    """A quantity of a model on two wheels."""

    model: str
    quantity: Quantity
    first: str  # version and engine, as second
    second: str
    sides: tuple[float, float]  # of both in the median round
    ratio: float
    interval: Optional[tuple[float, float]]  # of the ratio, None with too few rounds
    limit: float  # of the ratio
    rounds: int
    complete: bool  # whether no round is missing
    group: str  # machine, threads and batch
    file: str

    @property
    def changed(self) -> bool:
        """Whether the ratio is shown to lie beyond the limit, or as far below 1."""
        if self.interval is None:
            return False
        low, high = self.interval
        return low > self.limit or high < 1 / self.limit


@dataclass(frozen=True)
class Row:
    """What one file holds of a model: each neighbouring pair of wheels, and each wheel's cost."""

    compared: list[Compared]
    costs: list[Cost]


def read_comparisons(path: Path, document: dict[str, Any]) -> list[Row]:
    """Return what a file has of each model that has a round; ConformanceError for a bad one."""
    schema = document.get("schema", 1)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConformanceError(
            f"{path}: schema {schema}, but this version reads up to {SCHEMA}; upgrade "
            f"opencv-dnn-conformance"
        )
    read = _row if schema == SCHEMA else _row_of_schema_1
    try:
        return [read(path, document, one) for one in document["comparisons"] if one["rounds"]]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ConformanceError(
            f"{path}: no whole file of python -m conformance bench --json ({error!r})"
        ) from error


def _row(path: Path, document: dict[str, Any], one: dict[str, Any]) -> Row:
    heads = [f"{timing['version']} {timing['engine']}" for timing in one["rounds"][0]]
    compared = []
    for finding in one["findings"]:
        if finding["threads"] is None:
            continue  # of all numbers of threads together, which have rows of their own
        low, high = finding["interval"]
        compared.append(
            Compared(
                model=one["model"],
                quantity=BY_KEY[finding["quantity"]],
                first=heads[finding["wheels"][0]],
                second=heads[finding["wheels"][1]],
                sides=(finding["sides"][0], finding["sides"][1]),
                ratio=float(finding["ratio"]),
                interval=None if low is None or high is None else (low, high),
                limit=float(finding["limit"]),
                rounds=finding["rounds"],
                complete=one["complete"],
                group=_group(document, finding["threads"]),
                file=path.name,
            )
        )
    return Row(compared, list(_costs(path.name, document, one)))


def _costs(name: str, document: dict[str, Any], one: dict[str, Any]) -> Iterator[Cost]:
    timings = [[timing_of({**t, "types": {}}) for t in wheel] for wheel in zip(*one["rounds"])]
    for threads in document["threads"]:
        for of_wheel in timings:
            values = {}
            for quantity in QUANTITIES:
                found = [quantity.measure(timing, threads) for timing in of_wheel]
                told = [value for value in found if value is not None]
                values[quantity.key] = median(told) if told else None
            version, engine = of_wheel[0].version, of_wheel[0].engine
            yield Cost(one["model"], version, engine, _group(document, threads), name, values)


def _row_of_schema_1(path: Path, document: dict[str, Any], one: dict[str, Any]) -> Row:
    rounds = [tuple(median(side["times_ms"]) for side in pair) for pair in one["rounds"]]
    first, second = one["rounds"][0]
    ordered = sorted(rounds, key=lambda pair: pair[1] / pair[0])
    low, high = one["interval"]
    compared = Compared(
        model=one["model"],
        quantity=WARM,
        first=f"{first['version']} {first['engine']}",
        second=f"{second['version']} {second['engine']}",
        sides=ordered[(len(ordered) - 1) // 2],
        ratio=float(one["ratio"]),
        interval=None if low is None or high is None else (low, high),
        limit=WARM.limit,
        rounds=len(rounds),
        complete=one["complete"],
        group=_group(document, first["threads"]),
        file=path.name,
    )
    return Row([compared], [])


def _group(document: dict[str, Any], threads: int) -> str:
    return f"{on_threads(document['cpu'], threads)}, batch {document['batch']}"
