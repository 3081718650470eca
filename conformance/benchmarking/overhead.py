"""Does pytest-benchmark, as this suite uses it, tell the time that a bare loop tells?

Each of some processes runs the suite's own test of inference times on one model. This module is
also its pytest plugin (``-p conformance.benchmarking.overhead``): on the very network that the test
timed, it times a bare loop, half of it before the test and half after.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from conformance.errors import ConformanceError
from conformance.opencv.process import child_environment

OPTION = "--overhead-file"
# Of the bare loop, before the test and again after it.
SECONDS = 1.0
_LOG_LINES = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says where the two medians are written."""
    parser.addoption(OPTION, type=Path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Time the bare loop around the test and write both medians, in ms."""
    fixtures: dict[str, Any] = getattr(item, "funcargs", {})
    infer = fixtures["inference"].infer
    infer()
    before = bare_loop(infer)
    yield
    bare = before + bare_loop(infer)
    medians = {"recorded": fixtures["benchmark"].stats.stats.median, "bare": median(bare)}
    text = json.dumps({name: 1000 * seconds for name, seconds in medians.items()})
    item.config.getoption(OPTION).write_text(text, encoding="utf-8")


def bare_loop(infer: Callable[[], object]) -> list[float]:
    """Return the seconds of each inference in SECONDS of them."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while (begin := time.perf_counter()) < end:
        infer()
        times.append(time.perf_counter() - begin)
    return times


def in_child(model: str, packs: Path) -> tuple[float, float]:
    """Return the recorded and the bare median, in ms, of one process.

    Raises ConformanceError with the end of pytest's output when it records nothing.
    """
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as folder:
        answer = Path(folder, "overhead.json")
        suite = ["--pyargs", "conformance.suite.test_inference_time", "--engine", "default"]
        suite += ["-p", __name__, "-p", "no:cacheprovider", f"{OPTION}={answer}"]
        suite += ["--packs", str(packs.resolve()), "-k", f"[{model}-opencv]"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *suite],
            capture_output=True,
            text=True,
            cwd=folder,
            env=child_environment(),
            check=False,
        )
        if not answer.exists():
            tail = "\n".join(done.stdout.splitlines()[-_LOG_LINES:])
            raise ConformanceError(f"no inference time of {model} was recorded:\n{tail}")
        found = json.loads(answer.read_text(encoding="utf-8"))
        return found["recorded"], found["bare"]
