"""Node by node, OpenCV stays as near to float64 as TensorFlow does, up to a multiple."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from conformance.candidate import CandidateRun
from conformance.pack.format import Pack
from conformance.session import Session
from conformance.verdict.judgement import Judgement
from conformance.verdict.nodes import NodeDeviation, judge_layers, layers_line

pytestmark = pytest.mark.stage("layers")


@pytest.fixture
def nodes(answered: CandidateRun, pack: Pack, conformance_session: Session) -> list[NodeDeviation]:
    """Every node of the graph, as far as OpenCV has a layer for it."""
    failure = answered.failure_before("layers")
    if failure is not None:
        pytest.fail(str(failure), pytrace=False)
    return conformance_session.limits.profile(pack, answered)


def test_nodes_stay_in_the_noise(
    nodes: list[NodeDeviation],
    answered: CandidateRun,
    pack: Pack,
    verify: Callable[[Judgement], None],
    record_line: Callable[[dict[str, Any]], None],
) -> None:
    """Each node that computes something has a layer, which strays no farther than it may."""
    record_line(layers_line(pack.model, answered.config.switches, nodes))
    verify(judge_layers(nodes))
