"""OpenCV reads the frozen graph, sets the network up and runs it on every input."""

from __future__ import annotations

from typing import Any, Callable, Optional

import pytest

from conformance.candidate import CandidateRun
from conformance.pack.format import Pack
from conformance.results.runs import run_line
from conformance.verdict.expectations import CHAIN


def stopped_at(candidate: CandidateRun, *stages: str) -> Optional[str]:
    """Return what stopped the candidate where that happened at one of `stages`."""
    failure = candidate.failure
    return str(failure) if failure is not None and failure.stage in stages else None


def check(candidate: CandidateRun, *stages: str) -> None:
    """Fail where the candidate stopped at one of `stages`."""
    __tracebackhide__ = True
    message = stopped_at(candidate, *stages)
    if message:
        pytest.fail(message, pytrace=False)


@pytest.fixture
def reached(request: pytest.FixtureRequest, candidate: CandidateRun) -> CandidateRun:
    """The candidate, provided that it got as far as the stage of the test."""
    stage = request.node.get_closest_marker("stage").args[0]
    message = stopped_at(candidate, *CHAIN[: CHAIN.index(stage)])
    if message:
        # In a fixture this is an error: the test of the earlier stage is the one that fails.
        pytest.fail(f"not reached: {message}", pytrace=False)
    return candidate


@pytest.mark.stage("parse")
def test_parse(candidate: CandidateRun) -> None:
    """The importer makes a network of the frozen graph."""
    check(candidate, "start", "parse")


@pytest.mark.stage("setup")
def test_setup(reached: CandidateRun) -> None:
    """The network takes the backend, the target and the input."""
    check(reached, "setup")


@pytest.mark.stage("forward")
def test_forward(
    pack: Pack, reached: CandidateRun, record_line: Callable[[dict[str, Any]], None]
) -> None:
    """The network answers every input."""
    check(reached, "forward")
    record_line(run_line(pack, reached, reached.config.switches))
