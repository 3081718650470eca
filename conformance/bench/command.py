"""bench: what OpenCV wheels cost on this machine: is one slower, or does it need more memory?"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from conformance.candidate import RunConfig
from conformance.cli import BAD, ERROR, INTERRUPTED, OK
from conformance.cli.options import (
    ENGINE,
    OWN,
    add_option,
    add_options,
    chosen,
    count,
    names,
    positive,
)
from conformance.errors import ConformanceError, os_errors
from conformance.opencv.timing import TimingRequest
from conformance.pack.format import Pack
from conformance.pack.sealed import now, write_text
from conformance.processes.environments import copy_package, default_root
from conformance.processes.machine import cores, cpu_name
from conformance.processes.scratch import Scratch
from conformance.results.comparisons import KIND, SCHEMA
from conformance.results.quantities import QUANTITIES
from conformance.session import Session, choices_of

from . import comparison as compared
from . import tables
from .comparison import Comparison, Limits
from .wheels import Plan, own_threads, run, wheel

# Pairs of processes: so many that a slow-down of 3 % is found (docs/cost.md).
ROUNDS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `bench` takes."""
    add = parser.add_argument
    add(
        "--opencv",
        action="append",
        default=[],
        metavar="WHEEL",
        help="a version of opencv-python-headless or the path of a wheel; give two, the old one "
        "first, or one to compare it with itself",
    )
    add_option(
        add,
        "--across",
        type=names,
        metavar="LIST",
        help="instead: two or more of them, comma-separated, each compared with the one before it",
    )
    add_options(add, "models", "--packs", "--batch", *OWN)
    text = "numbers of threads, comma-separated (default: 1, and OpenCV's own choice)"
    add_option(add, "--threads", dest="counts", type=thread_counts, metavar="LIST", help=text)
    add_option(add, "--engine", **ENGINE)
    add("--layers", action="store_true", help="name the layers that became slower")
    for quantity in QUANTITIES:
        add_option(
            add,
            quantity.option,
            dest=quantity.key,
            type=positive,
            default=quantity.limit,
            metavar="X",
            help=f"{quantity.title}: fail where the ratio is shown to lie above X; default: "
            f"{quantity.limit:g}",
        )
    for name, default, metavar, parse, text in (
        ("--rounds", None, "N", count, f"each of a process a wheel; default: {ROUNDS} or more"),
        ("--seconds", 0.4, "S", positive, "timed a process; default: 0.4"),
        ("--repeat", 1, "N", count, "compare N times, tell each"),
    ):
        add_option(add, name, default=default, metavar=metavar, type=parse, help=text)
    add("--json", type=Path, metavar="FILE", help="keep what each process took, after each round")


def thread_counts(text: str) -> tuple[int, ...]:
    """Return numbers of threads, each once; ValueError for more than there are cores."""
    try:
        counts = tuple(map(count, names(text)))
    except ValueError:
        counts = ()
    if not counts or max(counts) > cores():
        raise ValueError(
            f"give numbers from 1 to {cores()}, the cores that there are, comma-separated, such as "
            f"{','.join(map(str, sorted({1, cores()})))}"
        )
    return counts


def bench_packs(arguments: argparse.Namespace) -> list[Pack]:
    """Return the packs of the models, of all where none is named; raise for a missing one."""
    models = chosen(vars(arguments), arguments.models)
    session = Session(choices_of(vars(arguments), models))
    return [session.pack(name) for name in session.models]


@dataclass
class _Bench:
    """A run of the command: what was planned, what is there so far, and where it is kept."""

    plan: Plan
    limits: Limits
    json: Optional[Path]
    comparisons: list[Comparison] = field(default_factory=list)
    complete: bool = False

    def keep(self) -> None:
        """Write the JSON file, whole or not at all."""
        if self.json is None:
            return
        with os_errors(f"--json {self.json}: can't be written"):
            write_text(self.json, json.dumps(self._document(), indent=1))

    def _document(self) -> dict[str, Any]:
        wheels = [{"spec": wheel.spec, **wheel.found} for wheel in self.plan.wheels]
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "created": now(),
            "complete": self.complete,
            "cpu": cpu_name(),
            "batch": self.plan.request.batch,
            "threads": list(self.plan.threads),
            "wheels": wheels,
            "comparisons": [compared.as_json(one, self.limits) for one in self.comparisons],
        }


def main(arguments: argparse.Namespace) -> int:
    """Compare wheels; 0 fine, 1 a cost rose by more than allowed, 2 errors, 130 interrupted.

    An interrupted comparison prints and keeps the rounds it has, labelled.
    """
    _check(arguments)
    compared.require_statistics()
    packs = bench_packs(arguments)
    with Scratch() as folder:
        bench = _Bench(_plan(arguments, Path(folder)), _limits(arguments), arguments.json)
        try:
            for pack in packs * arguments.repeat:
                _compare(bench, pack)
            bench.complete = True
        except KeyboardInterrupt:
            print("interrupted: what follows is what there is so far")
        bench.keep()
    return _report(bench, arguments)


def _check(arguments: argparse.Namespace) -> None:
    given = "give --opencv once or twice, or --across with two versions or more"
    if arguments.across and arguments.opencv:
        raise ConformanceError(f"bench takes --opencv or --across, not both: {given}")
    if not arguments.across and not 1 <= len(arguments.opencv) <= 2:
        raise ConformanceError(f"bench compares OpenCVs: {given}")
    if arguments.across:
        across = ",".join(arguments.across)
        if len(arguments.across) < 2:
            raise ConformanceError(f"--across {across}: give two versions or more, oldest first")
        if arguments.layers:
            raise ConformanceError(
                f"--across {across}: --layers compares two OpenCVs; give them with --opencv"
            )
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        raise ConformanceError(f"--json {arguments.json}: there is no such folder")


def _plan(arguments: argparse.Namespace, folder: Path) -> Plan:
    """Return what is to be run. folder: for a copy of this package, which the wheels run."""
    option, specs = "--opencv", arguments.opencv
    if arguments.across:
        option, specs = "--across", arguments.across
    code = copy_package(folder)
    found = {spec: wheel(spec, default_root(), code, option) for spec in specs}
    # One alone is compared with itself.
    wheels = tuple(found[spec] for spec in (specs if len(specs) > 1 else specs * 2))
    threads = arguments.counts or tuple(sorted({1, own_threads(wheels)}))
    request = TimingRequest(
        graph="",
        inputs="",
        config=RunConfig(engine=arguments.engine),
        batch=arguments.batch,
        layers=arguments.layers,
        seconds=arguments.seconds / len(threads),
    )
    return Plan(wheels, request, threads, _rounds(arguments, threads))


def _rounds(arguments: argparse.Namespace, threads: tuple[int, ...]) -> int:
    least = compared.least_rounds(threads)
    if arguments.rounds is None:
        return max(ROUNDS, least)
    if arguments.rounds < least:
        each = "" if len(threads) == 1 else f" with {len(threads)} numbers of threads"
        raise ConformanceError(
            f"--rounds {arguments.rounds}: give {least} at least{each}, fewer can't show a "
            f"difference"
        )
    return int(arguments.rounds)


def _limits(arguments: argparse.Namespace) -> Limits:
    return {quantity.key: getattr(arguments, quantity.key) for quantity in QUANTITIES}


def _compare(bench: _Bench, pack: Pack) -> None:
    for comparison in run(bench.plan, pack):
        if not comparison.rounds and not comparison.error:
            bench.comparisons.append(comparison)
        bench.keep()
        if sys.stderr.isatty():
            done = f"{len(comparison.rounds)}/{comparison.planned}"
            print(f"\r{comparison.model} {done} ", end="", file=sys.stderr, flush=True)
    found = tables.summary(comparison, bench.limits)
    print(f"\r{comparison.model}: {found}", file=sys.stderr, flush=True)


def _report(bench: _Bench, arguments: argparse.Namespace) -> int:
    """Print what was found and return the exit status."""
    specs = [wheel.spec for wheel in bench.plan.wheels]
    if arguments.across:
        tables.print_row(specs, bench.comparisons, bench.limits)
    else:
        tables.print_pair(specs, bench.comparisons, bench.limits)
    for one in bench.comparisons:
        if one.error:
            print(f"error: {one.error}", file=sys.stderr)
        elif arguments.layers and one.rounds:
            tables.print_layers(one)
    alarms = [tables.alarms(one, bench.limits) for one in bench.comparisons]
    if arguments.repeat > 1:
        tables.print_repeated(bench.comparisons, bench.limits)
    if not bench.complete:
        return INTERRUPTED
    if any(one.error for one in bench.comparisons):
        return ERROR
    return BAD if any(alarms) else OK
