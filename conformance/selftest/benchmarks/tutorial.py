"""tutorial: the suite on a warm mobilenet beside the tutorial's own run

It builds the pack if it is missing, then runs both in turn and prints medians and their ratio. Both
find their modules compiled, as pip leaves them, whatever this machine keeps of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from conformance.cli import OK
from conformance.cli.options import add_option
from conformance.fixtures import fixture_path
from conformance.processes.child import child_environment, run_child

ROUNDS = 5


def seconds(command: list[str], legacy: bool, bytecode: Path) -> float:
    """Return the wall time of one process; raise RuntimeError with its output if it fails.

    bytecode: the folder of compiled modules.
    """
    environment = child_environment(
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_USE_LEGACY_KERAS="1" if legacy else "0",
        PYTHONDONTWRITEBYTECODE=None,
        PYTHONPYCACHEPREFIX=str(bytecode),
    )
    begin = time.perf_counter()
    ending = run_child(command, None, environment)
    if ending.code != 0:
        raise RuntimeError(f"{' '.join(command)} {ending.how}:\n{ending.output}\n{ending.log}")
    return time.perf_counter() - begin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `tutorial` takes."""
    add_option(parser.add_argument, "--packs")


def main(arguments: argparse.Namespace) -> int:
    """Print both medians and the ratio of the suite's run to the tutorial's."""
    packs = arguments.packs.resolve()
    image = str(fixture_path("images/squirrel_cls.jpg"))
    tutorial = [sys.executable, "-m", "conformance.selftest.tutorial", image]
    suite = [sys.executable, "-m", "pytest", "--pyargs", "conformance.suite", f"--packs={packs}"]
    suite += ["-k", "mobilenet and not mobilenetv2", "--engine=default", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as folder:
        bytecode = Path(folder)
        seconds(suite, False, bytecode)
        seconds(tutorial, True, bytecode)
        rounds = [
            (seconds(tutorial, True, bytecode), seconds(suite, False, bytecode))
            for _ in range(ROUNDS)
        ]
    medians = [statistics.median(column) for column in zip(*rounds)]
    ratio = statistics.median(b / a for a, b in rounds)
    print(f"tutorial's script, freeze, read, two inferences   {medians[0]:6.2f} s")
    print(f"suite, mobilenet, warm, all its tests             {medians[1]:6.2f} s")
    print(f"suite / tutorial, median of {ROUNDS} pairs               {ratio:6.2f}")
    return OK
