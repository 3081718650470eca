"""Runs the processes that `bench` compares: A B, B A, A B, … one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def wheel(spec: str, root: Path, code: Path, option: str = "--opencv") -> Wheel:
    """Return a wheel that can be used, its environment made if need be (environments.prepare)."""
    interpreter = prepare(spec, root, code, option)
    try:
        return Wheel(spec, interpreter, probe_in_child(interpreter=interpreter))
    except ConformanceError as error:
        folder = Path(interpreter.python).parents[1]
        raise ConformanceError(
            f"{option} {spec}: it was installed but can't be used: {error}\n"
            f"(its environment is {folder}; remove that to have it made again)"
        ) from error


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    wheels: tuple[Wheel, ...]
    request: TimingRequest  # how each process times; graph and inputs are each model's
    threads: tuple[int, ...]  # numbers of them: rounds begin with each in turn
    rounds: int
    timeout: float = 600.0  # seconds a process may take


def own_threads(wheels: Sequence[Wheel]) -> int:
    """Return how many threads the wheels run on by their own choice.

    Raises ConformanceError where they do not choose alike.
    """
    chosen = {wheel.found["threads"]: wheel.spec for wheel in wheels}
    if len(chosen) > 1:
        told = ", ".join(f"{spec} on {threads}" for threads, spec in chosen.items())
        raise ConformanceError(
            f"the OpenCVs run on different numbers of threads by their own choice ({told}), so "
            f"their times can't be compared; set the numbers with --threads"
        )
    return int(next(iter(chosen)))


def run(plan: Plan, pack: Pack) -> Iterator[Comparison]:
    """Yield the comparison of one model, the same object, first empty and after each round.

    An error of OpenCV's ends it and is kept in it.
    """
    comparison = Comparison(pack.model, pack.manifest.digest(), plan.rounds, plan.threads)
    yield comparison
    for number in range(plan.rounds):
        try:
            comparison.rounds.append(_round(plan, pack, number))
        except ConformanceError as error:
            comparison.error = str(error)
            yield comparison
            return
        yield comparison


def _round(plan: Plan, pack: Pack, number: int) -> tuple[Timing, ...]:
    turn, place = divmod(number, len(plan.threads))
    # Each process begins with one number of threads and goes on with the others.
    threads = (*plan.threads[place:], *plan.threads[:place])
    # Every other time the row runs from its end: a machine that grows slower, or favours whoever
    # comes after, then favours none.
    order = range(len(plan.wheels))[:: -1 if turn % 2 else 1]
    timings = {index: _time(plan, pack, index, threads) for index in order}
    return tuple(timings[index] for index in range(len(plan.wheels)))


def _time(plan: Plan, pack: Pack, index: int, threads: tuple[int, ...]) -> Timing:
    # All read the same file: one that each has an importer for.
    shared = set.intersection(*(set(one.found["importers"]) for one in plan.wheels))
    importer = chosen_importer(pack.path, sorted(shared), plan.request.batch)
    request = replace(
        plan.request,
        graph=str(file_for(pack.path, importer).resolve()),
        inputs=str(pack.path / "inputs.npy"),
        config=replace(plan.request.config, importer=importer, threads=threads[0]),
        further_threads=threads[1:],
        layout=pack.manifest.input_layout,
        values=pack.values,
    )
    wheel = plan.wheels[index]
    subject = f"{pack.model} on OpenCV {wheel.version}"
    return time_in_child(request, subject, plan.timeout, wheel.interpreter)
