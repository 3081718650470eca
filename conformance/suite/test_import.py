"""OpenCV reads the frozen graph, sets the network up and runs it on every input."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance.opencv.records import CandidateRun
from conformance.pack import Pack
from conformance.reporting.recorder import run_line
from conformance.session import switches

STAGES = ("start", "parse", "setup", "forward")


def check_reached(candidate: CandidateRun, stage: str) -> None:
    """Fail where the candidate stopped at `stage`; raise where it did not get that far."""
    __tracebackhide__ = True
    failure = candidate.failure
    if failure is None or failure.stage not in STAGES:
        return
    if failure.stage == stage:
        pytest.fail(str(failure), pytrace=False)
    if STAGES.index(failure.stage) < STAGES.index(stage):
        raise RuntimeError(f"not reached: {failure}")


@pytest.mark.stage("parse")
def test_parse(candidate: CandidateRun) -> None:
    """The importer makes a network of the frozen graph."""
    check_reached(candidate, "start")
    check_reached(candidate, "parse")


@pytest.mark.stage("setup")
def test_setup(candidate: CandidateRun) -> None:
    """The network takes the backend, the target and the input."""
    check_reached(candidate, "setup")


@pytest.mark.stage("forward")
def test_forward(
    pack: Pack, candidate: CandidateRun, record_line: Callable[[dict[str, Any]], None]
) -> None:
    """The network answers every input."""
    check_reached(candidate, "forward")
    record_line(run_line(pack, candidate, switches(candidate.config)))
