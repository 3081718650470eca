"""Judgements of candidates that are right, slightly off, and wrong in a known way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from conformance.verdict.judge import (
    Sides,
    judge_batch,
    judge_distance,
    judge_dtype,
    judge_finite,
    judge_logits,
    judge_repeat,
    judge_shape,
    judge_sums_to_one,
    judge_top,
)
from conformance.verdict.judgement import Judgement
from conformance.verdict.message import Context, failure_message
from conformance.verdict.tolerance import Allowance, allow, load_tolerances

if TYPE_CHECKING:
    from conformance.verdict.metrics import Array

_NAMES = [f"photo{n}" for n in range(6)] + ["black", "noise"]
_RNG = np.random.default_rng(7)
_LOGITS = _RNG.normal(0, 3, (8, 1000))
_CONTEXT = Context(
    "resnet50", "4.14.0", "classic engine", "pytest 'suite/test_agreement.py::test_l1'"
)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _strayed(size: float) -> Array:
    """Logits that stray from the truth by about `size`, seeded."""
    return _LOGITS + np.random.default_rng(1).normal(0, size, _LOGITS.shape)


_TRUTH = _softmax(_LOGITS)
_TF_LOGITS = _strayed(1e-5).astype(np.float32)
_TF = _softmax(_strayed(1e-5)).astype(np.float32)
_GOOD = Sides(_NAMES, _softmax(_strayed(2e-5)).astype(np.float32), _TRUTH)


def _allowance(metric: str) -> Allowance:
    logits = metric.startswith("logits")
    pair = (_TF_LOGITS, _LOGITS) if logits else (_TF, _TRUTH)
    return allow(load_tolerances(), metric, *pair, model="resnet50", opencv="4.14.0")


def _with(values: dict[Any, Any], **changes: Any) -> Sides:
    """The good candidate with some of its values replaced: {(input, class): value}."""
    outputs = _GOOD.candidate.copy()
    for position, value in values.items():
        outputs[position] = value
    return replace(_GOOD, candidate=outputs, **changes)


def _judgements(sides: Sides) -> list[Judgement]:
    """Every judgement of one candidate's outputs."""
    logits = _allowance("logits_linf")
    return [
        judge_finite(sides),
        judge_sums_to_one(sides, 32),
        *(judge_distance(sides, _allowance(f"softmax_{m}")) for m in ("l1_sum", "l1_mean", "linf")),
        judge_top(sides, _LOGITS, logits, 1),
        judge_top(sides, _LOGITS, logits, 5),
        judge_repeat(replace(sides, candidate=_GOOD.candidate), sides.candidate),
    ]


def test_a_good_candidate_passes_everything() -> None:
    """A candidate at twice TensorFlow's own deviation passes every judgement without a note."""
    for judgement in [judge_shape(_GOOD), judge_dtype(_GOOD), *_judgements(_GOOD)]:
        assert judgement.passed, judgement
        assert judgement.notes == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_passes_nothing(bad: Any) -> None:
    """One NaN or infinity fails every judgement and is found where it is."""
    for judgement in _judgements(_with({(3, 500): bad})):
        assert not judgement.passed, judgement
        assert judgement.input == "photo3"
        assert judgement.observed in (np.inf, 1.0)  # or how many: finite, repeat


def test_nothing_finite_anywhere_passes_nothing() -> None:
    """A candidate of nothing but NaN fails, although no input is worse than another."""
    nothing = replace(_GOOD, candidate=np.full_like(_GOOD.candidate, np.nan))
    assert not any(judgement.passed for judgement in _judgements(nothing))


@pytest.mark.parametrize("shape", [(8, 1, 1000), (8, 999), (7, 1000), (8000,)])
def test_another_shape_passes_nothing_and_says_so(shape: tuple[int, ...]) -> None:
    """Outputs of another shape fail every judgement with both shapes in the reason."""
    sides = replace(_GOOD, candidate=np.resize(_GOOD.candidate, shape))
    for judgement in [judge_shape(sides), *_judgements(sides)[:-1]]:
        assert not judgement.passed
        assert str(list(shape)) in judgement.reason
        assert "expected [8, 1000]" in judgement.reason


def test_float64_outputs_are_not_float32() -> None:
    """OpenCV answers in float32; another dtype is named."""
    judgement = judge_dtype(replace(_GOOD, candidate=_GOOD.candidate.astype(np.float64)))
    assert not judgement.passed
    assert judgement.reason == "dtype is float64, expected float32"


def test_a_missing_softmax_does_not_sum_to_one() -> None:
    """Probabilities that sum to 1.001 on one input fail, naming it."""
    judgement = judge_sums_to_one(_with({4: _GOOD.candidate[4] * np.float32(1.001)}), 32)
    assert not judgement.passed
    assert judgement.input == "photo4"
    assert judgement.observed == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("metric", ["softmax_l1_sum", "softmax_l1_mean", "softmax_linf"])
def test_the_worst_input_and_class_are_found(metric: Any) -> None:
    """A deviation past the limit fails at its input and class, with both values."""
    wrong = _with({(6, 42): _GOOD.candidate[6, 42] + np.float32(0.01)})
    judgement = judge_distance(wrong, _allowance(metric))
    assert not judgement.passed
    assert (judgement.input, judgement.position) == ("black", 42)
    assert judgement.values == (float(wrong.candidate[6, 42]), _TRUTH[6, 42])
    assert judgement.observed > judgement.allowed


def test_a_limit_that_is_no_number_passes_nothing() -> None:
    """With NaN for a limit, as a NaN in the reference would make it, no comparison passes."""
    nothing = replace(_allowance("softmax_linf"), values=np.full(8, np.nan))
    assert not judge_distance(_GOOD, nothing).passed


def test_worst_is_nearest_to_its_own_limit() -> None:
    """The input reported is the one farthest past its limit, not the one that strays most."""
    allowance = Allowance("softmax_linf", np.full(8, 1e-3), np.full(8, 1e-4), np.zeros(8), 10, "")
    allowance.values[2] = 1e-5
    wrong = _with({(2, 0): _TRUTH[2, 0] + 1e-4, (5, 0): _TRUTH[5, 0] + 5e-4})
    judgement = judge_distance(wrong, allowance)
    assert judgement.input == "photo2"
    assert not judgement.passed


@pytest.mark.parametrize("metric", ["softmax_l1_sum", "softmax_linf", "logits_linf"])
@pytest.mark.parametrize(("factor", "passed"), [(0.99, True), (1.01, False)])
def test_the_required_multiple_is_the_one_that_decides(
    metric: Any, factor: float, passed: bool
) -> None:
    """With the reported multiple, rounded up a little, the same candidate passes; with less not."""
    logits = _strayed(3e-3).astype(np.float32)
    strayed = replace(_GOOD, candidate=_softmax(logits).astype(np.float32))

    def judge(allowance: Allowance) -> Judgement:
        if metric == "logits_linf":
            return judge_logits(strayed, logits, _LOGITS, allowance)
        return judge_distance(strayed, allowance)

    allowance = _allowance(metric)
    required = judge(allowance).required
    assert required is not None
    assert required > allowance.multiple
    assert judge(replace(allowance, values=required / factor * allowance.noise)).passed is passed


def test_logits_are_judged_by_themselves() -> None:
    """A shift that softmax does not see is seen in the logits."""
    judgement = judge_logits(
        _GOOD, _TF_LOGITS + np.float32(0.01), _LOGITS, _allowance("logits_linf")
    )
    assert not judgement.passed
    assert judgement.observed == pytest.approx(0.01, rel=0.05)


def _swapped(first: int, second: int, gap: float) -> tuple[Sides, Array, list[int]]:
    """Truth and candidate that differ by an exchange of two ranks `gap` apart on input 1."""
    order = np.argsort(-_LOGITS[1])
    logits = _LOGITS.copy()
    logits[1, order[second]] = logits[1, order[first]] - gap
    candidate = _softmax(logits)
    pair = [order[first], order[second]]
    candidate[1, pair] = candidate[1, pair[::-1]]
    return Sides(_NAMES, candidate.astype(np.float32), _softmax(logits)), logits, pair


@pytest.mark.parametrize("k", [1, 5])
def test_a_swap_inside_the_noise_is_noted_not_failed(k: int) -> None:
    """Two classes closer than both may stray can be exchanged; the judgement passes with a note."""
    allowance = _allowance("logits_linf")
    sides, logits, _ = _swapped(0, 1, allowance.values[1])
    judgement = judge_top(sides, logits, allowance, k)
    assert judgement.passed
    assert "swapped inside the noise on 'photo1'" in judgement.notes
    assert 0 < judgement.observed <= judgement.allowed


@pytest.mark.parametrize("k", [1, 5])
def test_a_swap_outside_the_noise_fails(k: int) -> None:
    """Two classes farther apart than both may stray can't be exchanged."""
    allowance = _allowance("logits_linf")
    sides, logits, pair = _swapped(0, 1, 3 * allowance.values[1])
    judgement = judge_top(sides, logits, allowance, k)
    assert not judgement.passed
    assert (judgement.input, judgement.position) == ("photo1", pair[1])
    assert judgement.required == pytest.approx(judgement.observed / (2 * allowance.noise[1]))


def test_top5_is_judged_in_its_order() -> None:
    """Exchanging ranks 2 and 4 fails the top-5, though the set is the same; so do 5 and 6."""
    allowance = _allowance("logits_linf")
    for ranks in ((1, 3), (4, 5)):
        sides, logits, pair = _swapped(*ranks, 1e-2)
        judgement = judge_top(sides, logits, allowance, 5)
        assert (judgement.passed, judgement.position) == (False, pair[1])


def test_improbable_classes_are_told_apart() -> None:
    """A swap of two classes of probability 1e-9, a factor 2 apart, is no noise."""
    logits = _LOGITS - 30
    logits[:, 0] = 0
    candidate = _softmax(logits)
    order = np.argsort(-logits[2])[1:3]
    logits[2, order[1]] = logits[2, order[0]] - np.log(2)
    candidate[2, order[1]] = 2 * candidate[2, order[0]]
    sides = Sides(_NAMES, candidate.astype(np.float32), _softmax(logits))
    assert not judge_top(sides, logits, _allowance("logits_linf"), 5).passed


def test_classes_that_underflow_have_no_order() -> None:
    """Where float32 has only zeros left, any order of those classes is right."""
    logits = _LOGITS - 200
    logits[:, 7] = 0
    sides = Sides(_NAMES, _softmax(logits).astype(np.float32), _softmax(logits))
    assert sides.candidate.astype(bool).sum() == len(_NAMES)
    assert judge_top(sides, logits, _allowance("logits_linf"), 5).passed


_FIRST = Sides(_NAMES[:4], _GOOD.candidate[:4], _TRUTH[:4])


@pytest.mark.parametrize(("second", "passed"), [(19.0, True), (12.0, False)])
def test_sigmoids_that_round_to_one_have_no_order(second: float, passed: bool) -> None:
    """Sigmoids that are both 1 in float32 may be exchanged, however far apart their logits lie."""
    logits = np.array([[-3.0, second, 20.0]])
    truth = 1 / (1 + np.exp(-logits))
    candidate = np.minimum(truth, truth[0, 1]).astype(np.float32)
    sides = Sides(["input"], candidate, truth)
    allowance = replace(_allowance("logits_linf"), values=np.array([1e-3]))
    assert judge_top(sides, logits, allowance, 1).passed is passed


def test_a_batch_must_have_the_shape_of_the_singles() -> None:
    """(10, 1, 1000) instead of (10, 1000) fails, and says whether the values agree."""
    allowance = _allowance("batch_linf").of(slice(4))
    batch = _FIRST.candidate[:, None, :]
    judgement = judge_batch(_FIRST, batch, allowance)
    assert not judgement.passed
    assert "[4, 1, 1000], expected [4, 1000]; the values, reshaped, agree" in judgement.reason
    assert "differ as well" in judge_batch(_FIRST, batch[::-1], allowance).reason


def test_a_batch_must_have_the_values_of_the_singles() -> None:
    """A batch within the noise passes; one short of images or with two exchanged does not."""
    allowance = _allowance("batch_linf").of(slice(4))
    assert judge_batch(_FIRST, _TF[:4], allowance).passed
    assert not judge_batch(_FIRST, _FIRST.candidate[[1, 0, 2, 3]], allowance).passed
    assert not judge_batch(_FIRST, _FIRST.candidate[:1], allowance).passed


def test_a_second_forward_must_give_the_same_bits() -> None:
    """One value that moved by a single bit fails; fewer inputs than the first run are enough."""
    repeat = _GOOD.candidate[:2].copy()
    assert judge_repeat(_GOOD, repeat).passed
    repeat[1, 9] = np.nextafter(repeat[1, 9], np.float32(1))
    judgement = judge_repeat(_GOOD, repeat)
    assert not judgement.passed
    assert (judgement.input, judgement.position, judgement.observed) == ("photo1", 9, 1.0)


def test_freezing_is_blamed_on_freezing() -> None:
    """A frozen graph that strays is named instead of OpenCV."""
    frozen = replace(_with({(0, 1): 0.5}), who="TensorFlow running the frozen graph")
    judgement = judge_distance(frozen, _allowance("frozen_l1_sum"))
    message = failure_message(judgement, replace(_CONTEXT, engine=""))
    assert message.startswith("resnet50 on TensorFlow running the frozen graph: frozen_l1_sum is")
    assert "OpenCV" not in message


def test_a_failure_message_says_all_there_is_to_know() -> None:
    """Model, version, engine, metric, place, both top-5s, what would pass, and the command."""
    wrong = _with({(6, 42): _GOOD.candidate[6, 42] + np.float32(0.5)})
    judgement = judge_distance(wrong, _allowance("softmax_linf"))
    message = failure_message(judgement, _CONTEXT)
    best = int(np.argmax(_TRUTH[6]))
    for part in (
        "resnet50 on OpenCV 4.14.0, classic engine: softmax_linf is 0.5, allowed ",
        "x the noise floor of",
        "Winograd",
        "worst input 'black', class 'agama' (42): 0.50",
        "top-5 of OpenCV",
        f"top-5 of reference: {_TRUTH[6, best]:.6f} ",
        "would have passed with a multiple of",
        f"again: {_CONTEXT.command}",
    ):
        assert part in message, part
    multiple = float(message.split("a multiple of ")[1].split()[0])
    assert judgement.required is not None
    assert judgement.required <= multiple <= 1.1 * judgement.required


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_failure_that_nothing_would_pass_says_so(bad: Any) -> None:
    """With a value that is not finite the message offers no tolerance."""
    judgement = judge_distance(_with({(0, 0): bad}), _allowance("softmax_l1_sum"))
    assert "no tolerance would have passed" in failure_message(judgement, _CONTEXT)


@pytest.mark.parametrize("bad", [{}, {(0, 0): np.nan}, {(1, 2): 0.9}])
def test_every_judgement_can_be_written_as_json_and_in_words(bad: Any) -> None:
    """as_dict is plain JSON without NaN or Infinity, and every judgement has a message."""
    for judgement in [judge_shape(_GOOD), *_judgements(_with(bad))]:
        json.dumps(judgement.as_dict(), allow_nan=False)
        assert failure_message(judgement, _CONTEXT).startswith("resnet50 on OpenCV 4.14.0")
