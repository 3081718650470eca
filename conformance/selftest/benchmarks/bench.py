"""bench: alarms of bench where there is no difference, and a small slow-down that it must find

A wheel against itself, and against a slower one: the same one, but that each forward waits a share
of the time that it took.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.cli import BAD, OK
from conformance.cli import main as command_line
from conformance.cli.options import add_option, add_options, count, folder, positive
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.processes.environments import copy_package, default_root, prepare
from conformance.results.quantities import BY_KEY, WARM

from ..changed_wheel import changed_wheel

# Of the comparisons with the slower wheel, in how many it must be shown.
FOUND = 0.95
DELAY = """

def _wait_longer(share):
    import time

    forward = dnn.Net.forward

    def longer(net, *arguments, **named):
        begin = time.perf_counter()
        answer = forward(net, *arguments, **named)
        end = time.perf_counter() + share * (time.perf_counter() - begin)
        while time.perf_counter() < end:
            pass
        return answer

    dnn.Net.forward = longer


_wait_longer({share!r})
"""


def slower_wheel(packages: Path, share: float, target: Path) -> Path:
    """Make a wheel, in the folder `target`, of the OpenCV in `packages` with a slower forward."""
    return changed_wheel(packages, target, "1slower", DELAY.format(share=share))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `bench` takes, as a benchmark."""
    add_options(parser.add_argument, "models", "--packs")
    parser.add_argument("--opencv", default="4.12.0.88", metavar="WHEEL", help="a version")
    for name, default, metavar, parse, text in (
        ("--delay", 0.03, "SHARE", positive, "of a forward's time, that it waits; default: 0.03"),
        ("--repeat", 20, "N", count, "comparisons of each kind; default: 20"),
    ):
        add_option(
            parser.add_argument, name, default=default, metavar=metavar, type=parse, help=text
        )
    add_option(parser.add_argument, "--json", type=folder, metavar="DIR", help="keep bench's files")


def main(arguments: argparse.Namespace) -> int:
    """Compare a wheel with itself and a slower one; 1 for an alarm, or a slow-down not shown."""
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as name:
        made = Path(name)
        code = copy_package(made)
        python = Path(prepare(arguments.opencv, default_root(), code).python)
        (packages,) = python.parents[1].glob("lib/python*/site-packages")
        wheel = slower_wheel(packages, arguments.delay, made)
        environment = Path(prepare(str(wheel), default_root(), code).python).parents[1]
        try:
            kept = arguments.json or made
            kept.mkdir(parents=True, exist_ok=True)
            alike = _compare(arguments, [arguments.opencv], kept / "alike.json")
            slower = _compare(arguments, [arguments.opencv, str(wheel)], kept / "slower.json")
        finally:
            shutil.rmtree(environment)
            environment.with_name(f"{environment.name}.lock").unlink()
    return _report(arguments, alike, slower)


def _compare(
    arguments: argparse.Namespace, wheels: Sequence[str], file: Path
) -> list[dict[str, Any]]:
    """Return the comparisons that bench makes by default; raise where one did not end well."""
    chosen = [f"--opencv={wheel}" for wheel in wheels]
    options = [f"--packs={arguments.packs}", f"--repeat={arguments.repeat}", f"--json={file}"]
    models = arguments.models or ["mobilenet"]
    begin = time.perf_counter()
    if command_line.main(["bench", *models, *chosen, *options]) not in (OK, BAD):
        raise ConformanceError("bench did not come to an end")
    seconds = (time.perf_counter() - begin) / (arguments.repeat * len(models))
    print(f"{seconds:.1f} s a comparison\n")
    comparisons: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["comparisons"]
    return comparisons


@dataclass
class _Counts:
    """How often a verdict was reached of a quantity."""

    alarms: int = 0
    more: int = 0  # alarms included
    less: int = 0


Place = tuple[str, str, int]  # model, Quantity.key, threads


def _count(comparisons: Sequence[Mapping[str, Any]]) -> dict[Place, _Counts]:
    counts: dict[Place, _Counts] = {}
    for one in comparisons:
        for finding in one["findings"]:
            place = one["model"], finding["quantity"], finding["threads"]
            found = counts.setdefault(place, _Counts())
            more, less = BY_KEY[finding["quantity"]].words
            alarm = finding["verdict"].startswith("above")
            found.alarms += alarm
            found.more += alarm or finding["verdict"] == more
            found.less += finding["verdict"] == less
    return counts


def _report(
    arguments: argparse.Namespace,
    alike: Sequence[Mapping[str, Any]],
    slower: Sequence[Mapping[str, Any]],
) -> int:
    """Print how often what was said; 1 where that was wrong too often."""
    with_itself, with_slower = _count(alike), _count(slower)
    rows = []
    for place, counts in with_itself.items():
        model, key, threads = place
        told = (counts.alarms, counts.more, counts.less, with_slower[place].more)
        rows.append((model, BY_KEY[key].head, str(threads), *map(str, told)))
    title = f"of {arguments.repeat} comparisons with itself, and {arguments.repeat} with one that "
    heads = ("model", "", ">threads", ">alarms", ">more", ">less", ">shown slower")
    print_table(f"{title}is {arguments.delay:.0%} slower", heads, rows)
    if any(counts.alarms for counts in with_itself.values()):
        return BAD
    found = [counts.more for place, counts in with_slower.items() if place[1] == WARM.key]
    return OK if min(found) >= FOUND * arguments.repeat else BAD
