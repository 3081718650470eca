"""``python -m conformance bench``: the inference times of two OpenCV wheels, compared."""

from __future__ import annotations

import argparse
import json
import math
import posixpath
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from rich.console import Console

from conformance.candidate import RunConfig
from conformance.cli import BAD, ERROR, INTERRUPTED, OK
from conformance.cli.options import (
    ENGINE,
    OWN,
    add_option,
    add_options,
    chosen,
    count,
    positive,
)
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.opencv.timing import TimingRequest
from conformance.pack.format import Pack
from conformance.pack.sealed import write_text
from conformance.processes.environments import copy_package, default_root
from conformance.processes.machine import cpu_name
from conformance.processes.scratch import Scratch
from conformance.results.comparisons import KIND
from conformance.results.lines import now
from conformance.session import Session, choices_of

from . import comparison as compared
from .comparison import LEAST_ROUNDS, Comparison, Estimate, Part
from .wheels import Plan, Wheel, run, wheel

SCHEMA = 1
_LAYERS_SHOWN = 12


def bench_options(parser: argparse.ArgumentParser) -> None:
    """Add what `bench` takes."""
    add = parser.add_argument
    add(
        "--opencv",
        action="append",
        required=True,
        metavar="WHEEL",
        help="a version of opencv-python-headless or the path of a wheel; give two, the old one "
        "first, or one to compare it with itself",
    )
    add_options(add, "models", "--packs", "--threads", "--batch", *OWN)
    add_option(add, "--engine", **ENGINE)
    add("--layers", action="store_true", help="name the layers that became slower")
    for name, default, metavar, parse, text in (
        ("--fail-above", 1.10, "X", positive, "default: 1.1"),
        ("--rounds", 15, "N", count, "pairs of processes; default: 15"),
        ("--seconds", 0.5, "S", positive, "timed a process; default: 0.5"),
        ("--repeat", 1, "N", count, "compare N times, tell each"),
    ):
        add_option(add, name, default=default, metavar=metavar, type=parse, help=text)
    add("--json", type=Path, metavar="FILE", help="keep every process's times, after each round")


def bench_packs(arguments: argparse.Namespace) -> list[Pack]:
    """Return the packs of the models, of all where none is named; raise for a missing one."""
    models = chosen(vars(arguments), arguments.models)
    session = Session(choices_of(vars(arguments), models))
    return [session.pack(name) for name in session.models]


@dataclass
class _Bench:
    """A run of the command: what was planned, what is there so far, and where it is kept."""

    plan: Plan
    json: Optional[Path]
    comparisons: list[Comparison] = field(default_factory=list)
    complete: bool = False

    def keep(self) -> None:
        """Write the JSON file, whole or not at all."""
        if self.json is None:
            return
        try:
            write_text(self.json, json.dumps(self._document(), indent=1))
        except OSError as error:
            raise ConformanceError(
                f"--json {self.json}: can't be written ({error.strerror})"
            ) from error

    def _document(self) -> dict[str, Any]:
        wheels = [{"spec": wheel.spec, **wheel.found} for wheel in self.plan.wheels]
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "created": now(),
            "complete": self.complete,
            "cpu": cpu_name(),
            "batch": self.plan.request.batch,
            "wheels": wheels,
            "comparisons": [compared.as_json(one) for one in self.comparisons],
        }


def run_bench(arguments: argparse.Namespace) -> int:
    """Compare two wheels; 0 fine, 1 slower than allowed, 2 errors, 130 interrupted.

    An interrupted comparison prints and keeps the rounds it has, labelled.
    """
    _check(arguments)
    compared.require_statistics()
    packs = bench_packs(arguments)
    with Scratch() as folder:
        code = copy_package(Path(folder))
        found = {spec: wheel(spec, default_root(), code) for spec in arguments.opencv}
        wheels = found[arguments.opencv[0]], found[arguments.opencv[-1]]
        bench = _Bench(_plan(wheels, arguments), arguments.json)
        try:
            for pack in packs * arguments.repeat:
                _compare(bench, pack, arguments)
            bench.complete = True
        except KeyboardInterrupt:
            print("interrupted: what follows is what there is so far")
        bench.keep()
    return _report(bench, arguments)


def _check(arguments: argparse.Namespace) -> None:
    if len(arguments.opencv) > 2:
        raise ConformanceError("bench compares two OpenCVs: give --opencv once or twice")
    if arguments.rounds < LEAST_ROUNDS:
        raise ConformanceError(
            f"--rounds {arguments.rounds}: {LEAST_ROUNDS} at least, fewer can't show a difference"
        )
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        raise ConformanceError(f"--json {arguments.json}: there is no such folder")


def _plan(wheels: tuple[Wheel, Wheel], arguments: argparse.Namespace) -> Plan:
    config = RunConfig(engine=arguments.engine, threads=arguments.threads)
    request = TimingRequest(
        graph="",
        inputs="",
        config=config,
        batch=arguments.batch,
        layers=arguments.layers,
        seconds=arguments.seconds,
    )
    return Plan(wheels, request, arguments.rounds)


def _compare(bench: _Bench, pack: Pack, arguments: argparse.Namespace) -> None:
    for comparison in run(bench.plan, pack):
        if not comparison.rounds and not comparison.error:
            bench.comparisons.append(comparison)
        bench.keep()
        if sys.stderr.isatty():
            done = f"{len(comparison.rounds)}/{comparison.planned}"
            print(f"\r{comparison.model} {done} ", end="", file=sys.stderr, flush=True)
    found = compared.verdict(comparison, arguments.fail_above)
    print(f"\r{comparison.model}: {found}", file=sys.stderr, flush=True)


def _report(bench: _Bench, arguments: argparse.Namespace) -> int:
    """Print what was found and return the exit status."""
    first, second = bench.plan.wheels
    rows = [_row(one, arguments.fail_above) for one in bench.comparisons]
    heads = ("model", "A ms", "B ms", "B / A", "95 % interval", "")
    same = " (the same: an A/A comparison)" if first.spec == second.spec else ""
    print_table(f"A: OpenCV {first.spec}   B: OpenCV {second.spec}{same}", heads, rows)
    for one in bench.comparisons:
        if one.error:
            print(f"error: {one.error}", file=sys.stderr)
        elif arguments.layers and one.rounds:
            _print_layers(one)
    alarms = sum(compared.alarm(one, arguments.fail_above) for one in bench.comparisons)
    if arguments.repeat > 1:
        print(f"alarms: {alarms} of {len(bench.comparisons)} comparisons")
    if not bench.complete:
        return INTERRUPTED
    if any(one.error for one in bench.comparisons):
        return ERROR
    return BAD if alarms else OK


def _row(one: Comparison, fail_above: float) -> tuple[str, ...]:
    verdict = compared.verdict(one, fail_above)
    if not one.rounds:
        return one.model, "-", "-", "-", "-", verdict
    sides = [f"{timing.median_ms:.2f}" for timing in compared.typical_round(one)]
    found = compared.ratio(one)
    return one.model, *sides, f"{found.value:.3f}", interval_text(found, "{:.3f}"), verdict


def interval_text(found: Estimate, form: str) -> str:
    """Return an estimate's interval, each end as `form` formats it."""
    if found.low is None or found.high is None:
        return "-"
    return f"{form.format(found.low)} to {form.format(found.high)}"


def _print_layers(one: Comparison) -> None:
    heads = ("layer", "A ms", "B - A", "95 % interval", "of all")
    a, b = one.rounds[0]
    versions = f"{a.version} {a.engine} to {b.version} {b.engine}"
    types, layers = (compared.slowed(f(one)) for f in (compared.layer_types, compared.layers))
    if not layers:
        Console(highlight=False).print(f"{one.model}: no layer is shown to have become slower\n")
        return
    rows = [_part_row(part, part.name) for part in types]
    print_table(f"{one.model}, {versions}: types of layer that became slower", heads, rows)
    # Keras puts the model's own name before every layer's.
    common = posixpath.commonpath(posixpath.dirname(name) for name in a.layers)
    shown = layers[:_LAYERS_SHOWN]
    rows = [_part_row(p, p.name.removeprefix(common).lstrip("/")) for p in shown]
    more = f", {len(rows)} of {len(layers)}" if len(rows) < len(layers) else ""
    print_table(f"{one.model}: layers that became slower{more}", heads, rows)


def _part_row(part: Part, name: str) -> tuple[str, ...]:
    return (
        name,
        f"{part.first:.2f}",
        f"{part.difference.value:+.2f}",
        interval_text(part.difference, "{:+.2f}"),
        "-" if math.isnan(part.share) else f"{part.share:.0%}",
    )
