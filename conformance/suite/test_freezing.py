"""The steps before OpenCV: the frozen graph, and what it is converted to, is the Keras model."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import pytest

from conformance.candidate import RunConfig
from conformance.pack.conversion import Conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.session import Session
from conformance.verdict.judge import Sides, judge_distance
from conformance.verdict.judgement import Judgement, worst_of

pytestmark = pytest.mark.stage("freeze")


def test_frozen_graph_equals_keras(
    pack: Pack, verify: Callable[[Judgement], None], conformance_session: Session
) -> None:
    """TensorFlow running the frozen graph answers as the Keras model does, within rounding.

    Of an ONNX or TFLite file: its own runtime with all optimisations, as it does without.
    """
    own = FORMATS.get(pack.manifest.importer)
    who = f"the {own.title} file, optimised," if own else "the frozen graph"

    def judged(output: Pack) -> Judgement:
        arrays = output.load("frozen_f32"), output.load("outputs_f64")
        sides = Sides(pack.manifest.inputs, *arrays, who)
        allowance = conformance_session.limits.allow(
            output, RunConfig(winograd=False), "frozen_l1_sum"
        )
        return replace(judge_distance(sides, allowance), output=output.output_name)

    verify(worst_of([judged(output) for output in pack.heads()]))


@pytest.mark.stage("convert")
def test_conversion_equals_keras(
    pack: Pack,
    conversion: Conversion,
    verify: Callable[[Judgement], None],
    conformance_session: Session,
) -> None:
    """The converted file, run by its format's own runtime, answers as Keras does, within rounding.

    LiteRT for TFLite where it is installed, else TensorFlow's interpreter; ONNX Runtime for ONNX.
    """
    who = f"the {FORMATS[conversion.manifest.importer].title} file in {conversion.runtime}"

    def judged(output: Pack) -> Judgement:
        arrays = conversion.outputs(output.head), output.load("outputs_f64")
        sides = Sides(pack.manifest.inputs, *arrays, who)
        allowance = conformance_session.limits.allow(
            output, RunConfig(winograd=False), "frozen_l1_sum"
        )
        return replace(judge_distance(sides, allowance), output=output.output_name)

    verify(worst_of([judged(output) for output in pack.heads()]))
