"""The step before OpenCV: the frozen graph, run by TensorFlow, is the Keras model."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import pytest

from conformance.opencv.records import RunConfig
from conformance.pack import Pack
from conformance.session import Session
from conformance.verdict.judge import Judgement, Sides, judge_distance, worst_of

pytestmark = pytest.mark.stage("freeze")


def test_frozen_graph_equals_keras(
    pack: Pack, verify: Callable[[Judgement], None], conformance_session: Session
) -> None:
    """TensorFlow running the frozen graph answers as the Keras model does, within rounding."""

    def judged(output: Pack) -> Judgement:
        arrays = output.load("frozen_f32"), output.load("outputs_f64")
        sides = Sides(pack.manifest.inputs, *arrays, "the frozen graph")
        allowance = conformance_session.allow(output, RunConfig(winograd=False), "frozen_l1_sum")
        return replace(judge_distance(sides, allowance), output=output.output_name)

    verify(worst_of([judged(output) for output in pack.heads()]))
