"""OpenCV answers as TensorFlow does: form, ranking, and distance to the float64 truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Optional, Protocol

import numpy as np
import pytest

from conformance.candidate import BATCH, CandidateRun
from conformance.pack.format import Pack
from conformance.pack.sampling import SAMPLED
from conformance.verdict import judge
from conformance.verdict.checks import Output, outputs_of
from conformance.verdict.judgement import Judgement, worst_of
from conformance.verdict.tolerance import Allowance, Tolerances

Verify = Callable[[Judgement], None]
# Of `those`: which outputs have a best class.
RANKED = (lambda output: output.ranked, "no row of values whose order could be compared")


class Allow(Protocol):
    """What a metric may reach on each input, for the pack or one output of it."""

    def __call__(self, metric: str, pack: Optional[Pack] = None) -> Allowance:
        """Return what is allowed on each input."""


@pytest.fixture
def outputs(pack: Pack, answered: CandidateRun) -> list[Output]:
    """The model's outputs: one softmax, but of some models of the user's."""
    return outputs_of(pack, answered)


def each(outputs: Iterable[Output], judge_one: Callable[[Output], Judgement]) -> Judgement:
    """Return the judgement of the worst of the outputs."""
    return worst_of([output.named(judge_one(output)) for output in outputs])


def those(outputs: list[Output], fit: Callable[[Output], object], why: str) -> list[Output]:
    """Return the outputs that fit; skip the test, saying why, where none does."""
    some = [output for output in outputs if fit(output)]
    if not some:
        pytest.skip(why)
    return some


def given(candidate: CandidateRun, stage: str) -> np.ndarray:
    """Return the arrays of a later stage of the run; fail where OpenCV failed to give them."""
    __tracebackhide__ = True
    failure = candidate.failure_before(stage)
    if failure is not None:
        pytest.fail(str(failure), pytrace=False)
    return np.asarray(getattr(candidate, stage))


@pytest.mark.stage("output")
def test_shape(outputs: list[Output], verify: Verify) -> None:
    """One image gives one row of class probabilities."""
    verify(each(outputs, lambda output: judge.judge_shape(output.sides)))


@pytest.mark.stage("output")
def test_dtype(outputs: list[Output], verify: Verify) -> None:
    """The probabilities are float32."""
    verify(each(outputs, lambda output: judge.judge_dtype(output.sides)))


@pytest.mark.stage("output")
def test_finite(outputs: list[Output], verify: Verify) -> None:
    """No probability is NaN or infinite."""
    verify(each(outputs, lambda output: judge.judge_finite(output.sides)))


@pytest.mark.stage("output")
def test_sums_to_one(outputs: list[Output], verify: Verify, tolerances: Tolerances) -> None:
    """The probabilities of an image sum to 1 within rounding."""
    some = those(outputs, lambda output: output.is_softmax, "no softmax, so nothing sums to 1")
    eps = tolerances.sums_to_one_eps
    verify(each(some, lambda output: judge.judge_sums_to_one(output.sides, eps)))


@pytest.mark.stage("agreement")
def test_top1(outputs: list[Output], verify: Verify, allowance: Allow) -> None:
    """The best class is TensorFlow's, unless both of a swapped pair lie inside the noise."""
    verify(each(those(outputs, *RANKED), lambda output: top(output, allowance, 1)))


@pytest.mark.stage("agreement")
def test_top5(outputs: list[Output], verify: Verify, allowance: Allow) -> None:
    """The five best classes are TensorFlow's in TensorFlow's order, but for swaps in the noise."""
    verify(each(those(outputs, *RANKED), lambda output: top(output, allowance, 5)))


def top(output: Output, allowance: Allow, k: int) -> Judgement:
    """Judge the `k` best classes, all where there are fewer."""
    allowed, logits = allowance("logits_linf", output.pack), output.pack.load("logits_f64")
    return judge.judge_top(output.sides, logits, allowed, min(k, output.ranked))


@pytest.mark.stage("agreement")
@pytest.mark.parametrize("metric", ["softmax_l1_sum", "softmax_l1_mean", "softmax_linf"])
def test_softmax(outputs: list[Output], verify: Verify, allowance: Allow, metric: str) -> None:
    """The probabilities stray no farther from float64 than the noise floor allows."""

    def distance(output: Output) -> Judgement:
        return judge.judge_distance(output.sides, allowance(output.metric(metric), output.pack))

    verify(each(outputs, distance))


@pytest.mark.stage("agreement")
@pytest.mark.parametrize("metric", ["logits_l1_mean", "logits_linf"])
def test_logits(outputs: list[Output], verify: Verify, allowance: Allow, metric: str) -> None:
    """The logits, which no softmax squeezes, stray no farther than the noise floor allows."""

    def distance(output: Output) -> Judgement:
        logits, truth = given(output.run, "logits"), output.pack.load("logits_f64")[SAMPLED]
        allowed = allowance(metric, output.pack).of(SAMPLED)
        return judge.judge_logits(output.sides.of(SAMPLED), logits, truth, allowed)

    some = those(outputs, lambda output: output.has_logits, "a map of values has no logits")
    verify(each(some, distance))


@pytest.mark.stage("batch")
def test_batch_equals_singles(
    outputs: list[Output], pack: Pack, verify: Verify, allowance: Allow
) -> None:
    """A batch of N images gives N rows, those that the images give one by one."""
    if not pack.takes_batches:
        pytest.skip("the graph takes one image at a time")
    first = slice(BATCH)

    def together(output: Output) -> Judgement:
        batch, allowed = given(output.run, "batch"), allowance("batch_linf", output.pack)
        return judge.judge_batch(output.sides.of(first), batch, allowed.of(first))

    verify(each(outputs, together))


@pytest.mark.stage("repeat")
def test_second_forward_equals_first(outputs: list[Output], verify: Verify) -> None:
    """The same network run again on the same image gives the same bits."""

    def again(output: Output) -> Judgement:
        return judge.judge_repeat(output.sides, np.asarray(output.run.repeat))

    verify(each(outputs, again))
