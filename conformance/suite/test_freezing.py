"""The steps before OpenCV: the frozen graph, and what it is converted to, is the Keras model."""

from __future__ import annotations

from functools import partial
from typing import Callable

import pytest

from conformance.pack.conversion import Conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.session import Session
from conformance.verdict.checks import judge_file
from conformance.verdict.judgement import Judgement

pytestmark = pytest.mark.stage("freeze")


def test_frozen_graph_equals_keras(
    pack: Pack, verify: Callable[[Judgement], None], conformance_session: Session
) -> None:
    """TensorFlow running the frozen graph answers as the Keras model does, within rounding.

    Of an ONNX or TFLite file: its own runtime with all optimisations, as it does without.
    """
    own = FORMATS.get(pack.manifest.importer)
    who = f"the {own.title} file, optimised," if own else "the frozen graph"

    answers = partial(Pack.load, name="frozen_f32")
    verify(judge_file(conformance_session.limits, pack, answers, who))


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

    limits = conformance_session.limits
    verify(judge_file(limits, pack, lambda output: conversion.outputs(output.head), who))
