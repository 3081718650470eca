"""Runs the processes that `bench` compares: A B, B A, A B, … one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance.errors import ConformanceError
from conformance.opencv.capability import probe_in_child
from conformance.opencv.timing import Timing, TimingRequest, time_in_child
from conformance.pack.conversion import chosen_importer, file_for
from conformance.pack.format import Pack
from conformance.processes.child import Interpreter
from conformance.processes.environments import prepare

from .comparison import Comparison


@dataclass(frozen=True)
class Wheel:
    """A wheel of OpenCV in its environment."""

    spec: str  # as asked for
    interpreter: Interpreter
    found: dict[str, Any]  # by capability.probe

    @property
    def version(self) -> str:
        """The version of OpenCV itself, such as "4.12.0"."""
        return str(self.found["version"])


def wheel(spec: str, root: Path, code: Path) -> Wheel:
    """Return a wheel that can be used, its environment made if need be (environments.prepare)."""
    interpreter = prepare(spec, root, code)
    try:
        return Wheel(spec, interpreter, probe_in_child(interpreter=interpreter))
    except ConformanceError as error:
        folder = Path(interpreter.python).parents[1]
        raise ConformanceError(
            f"OpenCV {spec} was installed but can't be used: {error}\n"
            f"(its environment is {folder}; remove that to have it made again)"
        ) from error


@dataclass(frozen=True)
class Plan:
    """What is compared. request: how each process times; graph and inputs are each model's."""

    wheels: tuple[Wheel, Wheel]
    request: TimingRequest
    rounds: int
    timeout: float = 600.0


def run(plan: Plan, pack: Pack) -> Iterator[Comparison]:
    """Yield the comparison of one model, the same object, first empty and after each round.

    An error of OpenCV's ends it and is kept in it.
    """
    comparison = Comparison(pack.model, pack.manifest.digest(), plan.rounds)
    yield comparison
    for number in range(plan.rounds):
        try:
            comparison.rounds.append(_round(plan, pack, number))
        except ConformanceError as error:
            comparison.error = str(error)
            yield comparison
            return
        yield comparison


def _round(plan: Plan, pack: Pack, number: int) -> tuple[Timing, Timing]:
    # Every other round the second wheel goes first: a machine that grows slower, or favours
    # whoever comes after, then favours neither.
    first = number % 2
    timings = {index: _time(plan, pack, plan.wheels[index]) for index in (first, 1 - first)}
    if timings[0].threads != timings[1].threads:
        threads = " and ".join(str(timings[index].threads) for index in (0, 1))
        raise ConformanceError(
            f"{pack.model}: the two OpenCVs run on {threads} threads by their own choice, so their "
            f"times can't be compared; set the number with --threads"
        )
    return timings[0], timings[1]


def _time(plan: Plan, pack: Pack, wheel: Wheel) -> Timing:
    # Both read the same file: one that each has an importer for.
    first, second = (set(one.found["importers"]) for one in plan.wheels)
    importer = chosen_importer(pack.path, sorted(first & second), plan.request.batch)
    request = replace(
        plan.request,
        graph=str(file_for(pack.path, importer).resolve()),
        inputs=str(pack.path / "inputs.npy"),
        config=replace(plan.request.config, importer=importer),
        layout=pack.manifest.input_layout,
    )
    subject = f"{pack.model} on OpenCV {wheel.version}"
    return time_in_child(request, subject, plan.timeout, wheel.interpreter)
