"""OpenCV answers as TensorFlow does: form, ranking, and distance to the float64 truth."""

from __future__ import annotations

from typing import Callable

import numpy as np
import pytest

from conformance.opencv.records import BATCH, CandidateRun
from conformance.pack import SAMPLED, Pack
from conformance.verdict import judge
from conformance.verdict.judge import Judgement, Sides
from conformance.verdict.tolerance import Allowance, Tolerances

Verify = Callable[[Judgement], None]
Allow = Callable[[str], Allowance]


@pytest.fixture
def sides(pack: Pack, answered: CandidateRun) -> Sides:
    """OpenCV's softmax outputs [N, C] beside the float64 truth."""
    assert answered.outputs is not None
    return Sides(pack.manifest.inputs, answered.outputs, pack.load("outputs_f64"))


def given(candidate: CandidateRun, stage: str) -> np.ndarray:
    """Return the arrays of a later stage of the run; fail where OpenCV failed to give them."""
    __tracebackhide__ = True
    failure = candidate.failure_before(stage)
    if failure is not None:
        pytest.fail(str(failure), pytrace=False)
    return np.asarray(getattr(candidate, stage))


@pytest.mark.stage("output")
def test_shape(sides: Sides, verify: Verify) -> None:
    """One image gives one row of class probabilities."""
    verify(judge.judge_shape(sides))


@pytest.mark.stage("output")
def test_dtype(sides: Sides, verify: Verify) -> None:
    """The probabilities are float32."""
    verify(judge.judge_dtype(sides))


@pytest.mark.stage("output")
def test_finite(sides: Sides, verify: Verify) -> None:
    """No probability is NaN or infinite."""
    verify(judge.judge_finite(sides))


@pytest.mark.stage("output")
def test_sums_to_one(sides: Sides, verify: Verify, tolerances: Tolerances) -> None:
    """The probabilities of an image sum to 1 within rounding."""
    verify(judge.judge_sums_to_one(sides, tolerances.sums_to_one_eps))


@pytest.mark.stage("agreement")
def test_top1(sides: Sides, pack: Pack, verify: Verify, allowance: Allow) -> None:
    """The best class is TensorFlow's, unless both of a swapped pair lie inside the noise."""
    verify(judge.judge_top(sides, pack.load("logits_f64"), allowance("logits_linf"), 1))


@pytest.mark.stage("agreement")
def test_top5(sides: Sides, pack: Pack, verify: Verify, allowance: Allow) -> None:
    """The five best classes are TensorFlow's in TensorFlow's order, but for swaps in the noise."""
    verify(judge.judge_top(sides, pack.load("logits_f64"), allowance("logits_linf"), 5))


@pytest.mark.stage("agreement")
@pytest.mark.parametrize("metric", ["softmax_l1_sum", "softmax_l1_mean", "softmax_linf"])
def test_softmax(sides: Sides, verify: Verify, allowance: Allow, metric: str) -> None:
    """The probabilities stray no farther from float64 than the noise floor allows."""
    verify(judge.judge_distance(sides, allowance(metric)))


@pytest.mark.stage("agreement")
@pytest.mark.parametrize("metric", ["logits_l1_mean", "logits_linf"])
def test_logits(
    sides: Sides, answered: CandidateRun, pack: Pack, verify: Verify, allowance: Allow, metric: str
) -> None:
    """The logits, which no softmax squeezes, stray no farther than the noise floor allows."""
    logits = given(answered, "logits")
    truth = pack.load("logits_f64")[SAMPLED]
    verify(judge.judge_logits(sides.of(SAMPLED), logits, truth, allowance(metric).of(SAMPLED)))


@pytest.mark.stage("batch")
def test_batch_equals_singles(
    sides: Sides, answered: CandidateRun, verify: Verify, allowance: Allow
) -> None:
    """A batch of N images gives N rows, those that the images give one by one."""
    batch = given(answered, "batch")
    first = slice(BATCH)
    verify(judge.judge_batch(sides.of(first), batch, allowance("batch_linf").of(first)))


@pytest.mark.stage("repeat")
def test_second_forward_equals_first(sides: Sides, answered: CandidateRun, verify: Verify) -> None:
    """The same network run again on the same image gives the same bits."""
    assert answered.repeat is not None
    verify(judge.judge_repeat(sides, np.asarray(answered.repeat)))
