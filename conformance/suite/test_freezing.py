"""The step before OpenCV: the frozen graph, run by TensorFlow, is the Keras model."""

from __future__ import annotations

from typing import Callable

import pytest

from conformance.pack import Pack
from conformance.verdict.judge import Judgement, Sides, judge_distance
from conformance.verdict.tolerance import Tolerances, allow

pytestmark = pytest.mark.stage("freeze")


def test_frozen_graph_equals_keras(
    pack: Pack, verify: Callable[[Judgement], None], tolerances: Tolerances
) -> None:
    """TensorFlow running the frozen graph answers as the Keras model does, within rounding."""
    truth = pack.load("outputs_f64")
    sides = Sides(pack.manifest.inputs, pack.load("frozen_f32"), truth, "the frozen graph")
    allowance = allow(
        tolerances,
        "frozen_l1_sum",
        pack.load("outputs_f32"),
        truth,
        model=pack.model,
        opencv="0",
        winograd=False,
    )
    verify(judge_distance(sides, allowance))
