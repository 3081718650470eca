"""recording: recorded inference times beside those of a bare loop

The suite's own test of inference times is run again and again on one model, each time briefly. This
module is also its pytest plugin (``-p conformance.selftest.benchmarks.recording``): on the very
network that a test times, it times a bare loop, half of it before the test and half after. So the
two are side by side within half a second, and what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from conformance.bench import comparison as compared
from conformance.bench.tables import interval_text
from conformance.cli import BAD, OK
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.pack.store import default_packs
from conformance.processes.child import child_environment
from conformance.processes.inference import Infer, warm_up

FILE, REPEATS = "--overhead-file", "--overhead-repeats"
# Of pytest-benchmark's rounds, and of the bare loop, before the test and again after it.
RECORDED_SECONDS, BARE_SECONDS = 0.2, 0.1
_LOG_LINES = 20
# How far the two may be apart, as a share.
OVERHEAD_ALLOWED = 0.01


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options: where the medians are written, a line a test, and how many tests."""
    parser.addoption(FILE, type=Path)
    parser.addoption(REPEATS, type=int)


@pytest.fixture
def overhead_repeat() -> None:
    """Give the tests something to be repeated over."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat each test."""
    metafunc.fixturenames.append("overhead_repeat")
    metafunc.parametrize("overhead_repeat", range(metafunc.config.getoption(REPEATS)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Time the bare loop around the test and write both medians, in s."""
    fixtures: dict[str, Any] = getattr(item, "funcargs", {})
    infer = fixtures["inference"].infer
    warm_up(infer)
    before = bare_loop(infer)
    yield
    bare = before + bare_loop(infer)
    medians = fixtures["benchmark"].stats.stats.median, median(bare)
    with item.config.getoption(FILE).open("a", encoding="utf-8") as file:
        print(*medians, file=file)


def bare_loop(infer: Infer) -> list[float]:
    """Return the seconds of each inference in BARE_SECONDS of them."""
    times: list[float] = []
    end = time.perf_counter() + BARE_SECONDS
    while (begin := time.perf_counter()) < end:
        infer()
        times.append(time.perf_counter() - begin)
    return times


def in_child(model: str, packs: Path, repeats: int) -> list[tuple[float, float]]:
    """Return pairs of recorded and bare medians, in ms, all from one process.

    Raises ConformanceError with the end of pytest's output when it records nothing.
    """
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as folder:
        answer = Path(folder, "overhead")
        suite = ["--pyargs", "conformance.suite.test_inference_time", "--engine", "default"]
        suite += ["--packs", str(packs.resolve()), "-k", f"{model}-opencv"]
        suite += [f"--benchmark-max-time={RECORDED_SECONDS}", "-p", "no:cacheprovider"]
        suite += ["-p", __name__, f"{FILE}={answer}", f"{REPEATS}={repeats}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *suite],
            capture_output=True,
            text=True,
            cwd=folder,
            env=child_environment(),
            check=False,
        )
        lines = answer.read_text(encoding="utf-8").splitlines() if answer.exists() else []
        if len(lines) != repeats:
            tail = "\n".join(done.stdout.splitlines()[-_LOG_LINES:])
            raise ConformanceError(f"inference times of {model} were not recorded:\n{tail}")
        pairs = (map(float, line.split()) for line in lines)
        return [(1000 * recorded, 1000 * bare) for recorded, bare in pairs]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `recording` takes."""
    parser.add_argument("model", nargs="?", default="mobilenet", metavar="MODEL")
    parser.add_argument("--packs", type=Path, default=default_packs(), metavar="DIR")
    parser.add_argument("--repeats", type=int, default=31, metavar="N", help="default: 31")


def main(arguments: argparse.Namespace) -> int:
    """Print recorded and bare medians side by side; 1 where they differ by over 1 %."""
    get_model(arguments.model)
    compared.require_statistics()
    pairs = in_child(arguments.model, arguments.packs, max(1, arguments.repeats))
    recorded, bare = (compared.estimate(side).value for side in zip(*pairs))
    found = compared.estimate([of_suite / of_loop for of_suite, of_loop in pairs])
    row = (f"{recorded:.3f}", f"{bare:.3f}", f"{found.value:.4f}", interval_text(found, "{:.4f}"))
    heads = ("recorded ms", "bare loop ms", "recorded / bare", "95 % interval")
    title = f"{arguments.model}, one inference in OpenCV, {len(pairs)} pairs side by side"
    print_table(title, heads, [row])
    if abs(found.value - 1) <= OVERHEAD_ALLOWED:
        return OK
    if found.low is None or found.high is None or found.low <= 1 <= found.high:
        print("the machine is too busy to tell to 1 %: run it again when it is idle")
    return BAD
