"""suite: the suite itself: cold, warm, -n 2 and its start, here and in another checkout

Cold: packs built and judged. Warm: judged again.

Each part is measured as whole processes: seconds, CPU-seconds, and the peak memory of all of them
together. A second checkout, such as a worktree of an older commit, is measured in turn with this
one: here, there, there, here. So the commands are ones that older commits understand, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Optional

from conformance.cli import OK
from conformance.cli.options import add_option, chosen_models, count, names
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.models import EXTENDED, MODELS
from conformance.opencv.capability import probe_in_child
from conformance.pack.builder import require_tensorflow
from conformance.pack.request import keras_flavour
from conformance.pack.sealed import write_text
from conformance.processes.child import child_environment, last_lines
from conformance.processes.machine import cpu_name

from .memory import peak_of_tree

_ROOT = Path(__file__).resolve().parents[3]
ALL = "all"
# About two minutes on two cores.
_MODELS = ("mobilenet", "resnet50", "densenet121", "vgg16")
_SUITE = (
    *("-m", "pytest", "conformance/suite", "-q", "-p", "no:cacheprovider"),
    # A checkout's conftest.py loads the plugin; older ones can't where it is installed, too.
    *("-p", "no:conformance"),
    # Generated models have come later, and would be measured beside none of an older commit.
    "--ignore=conformance/suite/test_generated.py",
)
_JUDGE = (*_SUITE, "--engine", "default")
COLD = "cold"


@dataclass(frozen=True)
class Part:
    """One thing that is measured.

    command: after Python's name. judges: it takes the models and the packs. times: in each round.
    """

    title: str
    command: Sequence[str]
    judges: bool = True
    times: int = 1


PARTS = {
    COLD: Part("cold: build, judge", _JUDGE),
    "warm": Part("warm: judge", _JUDGE),
    "workers": Part("warm, -n 2", (*_JUDGE, "-n", "2")),
    "collect": Part("collect", (*_SUITE, "--collect-only", "-k", "mobilenet"), False, 5),
    "list": Part("list", ("-m", "conformance", "list"), False, 5),
    "child": Part("child's imports", ("-c", "import conformance.opencv.child"), False, 5),
}


@dataclass(frozen=True)
class Cost:
    """What one process and all that it started took: seconds of wall and CPU, and bytes."""

    seconds: float
    user: float
    system: float
    peak_bytes: int

    @property
    def cpu(self) -> float:
        """CPU-seconds of the program and of the kernel for it."""
        return self.user + self.system


@dataclass
class Side:
    """One of the checkouts. packs: what it judges by, built by itself."""

    root: Path
    packs: Path

    def commit(self) -> Optional[str]:
        """Return the commit that is checked out, "+" after it where files differ; None: no Git."""
        hash_of, changed = (
            subprocess.run(
                ["git", "-C", str(self.root), *words], capture_output=True, text=True, check=False
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
        return hash_of + "+" * bool(changed) if hash_of else None


def measured(command: Sequence[str], side: Side, bytecode: Path) -> Cost:
    """Return what `command`, after Python's name, costs in a checkout.

    bytecode: the folder that all commands have their compiled modules in, whatever this machine
    keeps of them. Raises ConformanceError with the end of its output where it fails.
    """
    environment = child_environment(
        PYTHONPATH=str(side.root), PYTHONDONTWRITEBYTECODE=None, PYTHONPYCACHEPREFIX=str(bytecode)
    )
    with tempfile.TemporaryFile() as output:
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        with (
            subprocess.Popen(
                [sys.executable, *command],
                cwd=side.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
            peak_of_tree(process.pid) as peak,
        ):
            process.wait()
            seconds = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            output.seek(0)
            log = last_lines(output.read().decode("utf-8", "replace"))
            raise ConformanceError(
                f"in {side.root}, python {' '.join(command)} "
                f"ended with exit code {process.returncode}.{log}"
            )
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(seconds, user, system, peak.bytes)


def only(models: Sequence[str]) -> list[str]:
    """Return pytest's option that leaves just these models, none where that is all of them."""
    if set(models) == set(MODELS):
        return []
    return ["-k", " or ".join(f"({_exactly(model)})" for model in models)]


def _exactly(model: str) -> str:
    longer = [name for name in (*MODELS, *EXTENDED) if model in name and name != model]
    return " and not ".join([model, *longer])


def command_of(part: Part, side: Side, models: Sequence[str]) -> list[str]:
    """Return the command, after Python's name, that does a part."""
    if not part.judges:
        return list(part.command)
    return [*part.command, "--packs", str(side.packs), *only(models)]


@dataclass(frozen=True)
class Plan:
    """What is to be measured. scratch: an empty folder."""

    parts: Sequence[str]
    models: Sequence[str]
    sides: Sequence[Side]
    rounds: int
    scratch: Path

    def warm_up(self) -> None:
        """Run all once, so that compiled modules are there, and packs where none are built later.

        Where building is measured, one model will do.
        """
        models = self.models[:1] if COLD in self.parts else self.models
        for side in self.sides:
            for name in dict.fromkeys(["warm", *self.parts]):
                if name != COLD:
                    self._cost(name, side, models)

    def measure(self) -> Iterator[dict[str, Any]]:
        """Yield part, side, round and costs of each process; the sides take turns to be first."""
        for number in range(self.rounds):
            sides = list(enumerate(self.sides))
            for index, side in sides if number % 2 == 0 else reversed(sides):
                if COLD in self.parts:
                    side.packs = Path(tempfile.mkdtemp(dir=self.scratch))
                for name in self.parts:
                    for _ in range(PARTS[name].times):
                        cost = self._cost(name, side, self.models)
                        yield {"part": name, "side": index, "round": number, **asdict(cost)}

    def _cost(self, name: str, side: Side, models: Sequence[str]) -> Cost:
        return measured(command_of(PARTS[name], side, models), side, self.scratch / "bytecode")


def _parts(text: str) -> list[str]:
    for name in names(text):
        if name not in PARTS:
            raise ValueError(f"{name!r} is none of {', '.join(PARTS)}")
    return [name for name in PARTS if name in names(text)]


def _checkout(text: str) -> Path:
    root = Path(text).expanduser().resolve()
    if not (root / "conformance" / "suite").is_dir():
        raise ValueError(
            "no checkout of this project is there (it has no conformance/suite); "
            "make one: git worktree add DIR COMMIT"
        )
    return root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `suite` takes."""
    text = f"names, or {ALL}; default: {' '.join(_MODELS)}"
    parser.add_argument("models", nargs="*", metavar="MODEL", help=text)
    add = parser.add_argument
    text = "another checkout, measured in turn with this one"
    add_option(add, "--against", type=_checkout, metavar="DIR", help=text)
    text = "how often (default: 1, or 2 with --against)"
    add_option(add, "--rounds", type=count, metavar="N", help=text)
    text = f"what to measure, comma-separated: {', '.join(PARTS)} (default: all)"
    add_option(add, "--parts", type=_parts, metavar="LIST", help=text)
    text = f"judge by the packs in this folder, and leave {COLD} out; what it lacks is built there"
    add_option(add, "--packs", default=None, help=text)
    add("-o", "--output", type=Path, metavar="FILE", help="write every figure here, as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Print what each part costs, in both checkouts where there are two."""
    models = chosen_models([] if arguments.models == [ALL] else arguments.models or _MODELS)
    parts = arguments.parts or [name for name in PARTS if name != COLD or not arguments.packs]
    if arguments.packs and COLD in parts:
        raise ConformanceError(
            f"--packs {arguments.packs}: {COLD} builds packs in a folder of its own; "
            f"leave {COLD} out of --parts, or do without --packs"
        )
    require_tensorflow(keras_flavour())
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        roots = [_ROOT, *([arguments.against] if arguments.against else [])]
        packs = arguments.packs.resolve() if arguments.packs else None
        sides = [Side(root, packs or scratch / f"packs-{i}") for i, root in enumerate(roots)]
        rounds = arguments.rounds or len(sides)
        plan = Plan(parts, models, sides, rounds, scratch)
        plan.warm_up()
        figures = []
        for figure in plan.measure():
            figures.append(figure)
            print(_progress(plan, figure), file=sys.stderr, flush=True)
        if arguments.output:
            document = {**described(plan), "measured": figures}
            write_text(arguments.output, json.dumps(document, indent=1) + "\n")
    print_costs(plan, figures)
    return OK


def _progress(plan: Plan, figure: Mapping[str, Any]) -> str:
    where = plan.sides[figure["side"]].root
    return f"round {figure['round'] + 1}: {figure['part']}, {figure['seconds']:.2f} s, in {where}"


def described(plan: Plan) -> dict[str, Any]:
    """Return what the figures hold for: machine, versions, models, commits."""
    opencv = probe_in_child()
    return {
        "machine": {
            "processor": cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "versions": {
            "opencv": opencv["distribution"],
            "tensorflow": metadata.version("tensorflow"),
            "numpy": opencv["numpy"],
            "pytest": metadata.version("pytest"),
            "python": platform.python_version(),
        },
        "models": list(plan.models),
        "rounds": plan.rounds,
        "sides": [{"checkout": str(s.root), "commit": s.commit()} for s in plan.sides],
    }


def print_costs(plan: Plan, figures: Sequence[Mapping[str, Any]]) -> None:
    """Print the medians of each part, and how the first checkout's are to the second's."""
    heads, rows = ["part", ">s", ">CPU s", ">MiB"], []
    if len(plan.sides) > 1:
        heads += [">there: s", ">CPU s", ">MiB", ">ratio s", ">CPU s", ">MiB"]
    for name in plan.parts:
        sides = [
            [_quantities(f) for f in figures if (f["part"], f["side"]) == (name, index)]
            for index in range(len(plan.sides))
        ]
        cells = [cell for side in sides for cell in _cells(side)]
        if len(sides) > 1:
            cells += _ratios(*sides)
        rows.append((PARTS[name].title, *cells))
    title = f"{', '.join(plan.models)}: medians of {plan.rounds} round{'s' * (plan.rounds > 1)}"
    print_table(title, heads, rows)
    for where, side in zip(("here", "there"), plan.sides):
        print(f"{where}: {side.root}, commit {side.commit() or 'unknown'}")


def _quantities(figure: Mapping[str, Any]) -> tuple[float, float, float]:
    return figure["seconds"], figure["user"] + figure["system"], figure["peak_bytes"] / 2**20


def _cells(costs: Sequence[Sequence[float]]) -> list[str]:
    # A process that ends between two looks at its memory has none.
    columns = zip(("{:.2f}", "{:.2f}", "{:.0f}"), zip(*costs))
    return [form.format(median(column)) if all(column) else "-" for form, column in columns]


def _ratios(here: Sequence[Sequence[float]], there: Sequence[Sequence[float]]) -> list[str]:
    """Return the medians over all pairs of processes that were measured in turn."""
    both = zip(zip(*here), zip(*there))
    return [
        f"{median(a / b for a, b in zip(ours, theirs)):.2f}" if all(ours + theirs) else "-"
        for ours, theirs in both
    ]
