"""From arrays to judgements: pure functions, one for each thing that a test asserts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from .judgement import Judgement, Top
from .metrics import METRICS, Array, Floats, Indices, deviation, inversions, linf, top_k
from .tolerance import EPS32, Allowance

# Below this, relative to the greatest logit, a float32 softmax underflows: no order is left to see.
_UNDERFLOW = math.log(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Sides:
    """What is compared: softmax outputs [N, C] of the candidate (float32) and the float64 truth.

    names: of the N inputs. who: whose the candidate's outputs are, for messages.
    """

    names: Sequence[str]
    candidate: Array
    truth: Array
    who: str = "OpenCV"

    def of(self, part: slice) -> Sides:
        """Return both sides of some of the inputs."""
        return replace(
            self,
            names=self.names[part],
            candidate=self.candidate[part],
            truth=self.truth[part],
        )


def judge_shape(sides: Sides) -> Judgement:
    """One row of class probabilities for each input: [N, C], as TensorFlow gives."""
    return _same("shape", sides, list(sides.candidate.shape), list(sides.truth.shape))


def judge_dtype(sides: Sides) -> Judgement:
    """The outputs are float32."""
    return _same("dtype", sides, str(sides.candidate.dtype), "float32")


def judge_finite(sides: Sides) -> Judgement:
    """No output is NaN or infinite. observed: how many are, on the worst input."""
    if _misshapen(sides):
        return replace(judge_shape(sides), metric="finite")
    bad = ~np.isfinite(sides.candidate)
    count = bad.sum(axis=1).astype(np.float64)
    worst = int(np.argmax(count))
    reason = f"{int(count.sum())} of {bad.size} values are not finite" if bad.any() else ""
    return _judgement("finite", sides, count, np.zeros(len(count)), worst, bad[worst], reason)


def judge_sums_to_one(sides: Sides, eps: float) -> Judgement:
    """The probabilities of each input sum to 1 within `eps` float32 epsilons."""
    if _misshapen(sides):
        return replace(judge_shape(sides), metric="sums_to_one")
    total = np.abs(_finite(sides.candidate.astype(np.float64).sum(axis=1)) - 1.0)
    allowed = np.full(len(total), eps * EPS32)
    return _judgement("sums_to_one", sides, total, allowed, _worst(total, allowed), None)


def judge_distance(sides: Sides, allowance: Allowance) -> Judgement:
    """The softmax outputs stray from the truth by no more than `allowance`, on every input."""
    return _distance(sides, allowance, sides.candidate, sides.truth)


def judge_logits(
    sides: Sides, logits: Array, truth_logits: Array, allowance: Allowance
) -> Judgement:
    """The logits [N, C] stray from the float64 ones by no more than `allowance`."""
    return _distance(sides, allowance, logits, truth_logits)


def judge_top(sides: Sides, truth_logits: Array, allowance: Allowance, k: int = 1) -> Judgement:
    """The candidate's `k` best classes are the truth's, in the same order.

    truth_logits: float64 [N, C]. allowance: of ``logits_linf``. Two classes may be exchanged where
    the truth has them no farther apart than both may move towards each other, 2 * allowance; that
    is noted. Margins are taken between logits, since a softmax squeezes those of improbable
    classes below any allowance. observed: the greatest margin that was turned round.
    """
    metric = f"top{k}"
    if _misshapen(sides):
        return replace(judge_shape(sides), metric=metric)
    truth = np.maximum(truth_logits, truth_logits.max(axis=1, keepdims=True) + _UNDERFLOW)
    ranking = top_k(sides.candidate, k)
    by_rank = np.where(_rounded_alike(sides.truth, ranking), 0.0, inversions(truth, ranking))
    turned = by_rank.max(axis=1)
    turned[~np.isfinite(sides.candidate).all(axis=1)] = np.inf
    twice = replace(allowance, metric=metric, values=2 * allowance.values)
    worst = _worst(turned, twice.values)
    judgement = _judgement(
        metric, sides, turned, twice.values, worst, None, allowance.reason, twice, scale=2.0
    )
    return replace(
        judgement,
        position=int(ranking[worst, int(np.argmax(by_rank[worst]))]),
        notes=_swaps(sides, turned, twice.values, metric),
    )


def _rounded_alike(truth: Array, ranking: Indices) -> Array:
    """Return, rank by rank, whether float32 has one value for the class chosen and the best left.

    [N, k]. So of sigmoids near 1, whose logits may lie far apart.
    """
    chosen, above = np.take_along_axis(truth, ranking, axis=1), inversions(truth, ranking)
    return np.asarray(above <= EPS32 * np.abs(chosen + above))


def judge_batch(sides: Sides, batch: Array, allowance: Allowance) -> Judgement:
    """One forward of all N inputs of `sides` gives [N, C], as N single forwards do.

    batch: OpenCV's raw output of the batch, whatever its shape. The values may differ from those
    of the single forwards by `allowance`, since another batch may take other kernels.
    """
    singles = sides.candidate
    together = replace(sides, truth=singles, candidate=batch, who=f"the batch of {len(singles)}")
    if batch.shape == singles.shape:
        return _distance(together, allowance, batch, singles)
    judgement = replace(judge_shape(together), metric=allowance.metric)
    if batch.size != singles.size:
        return judgement
    flat = replace(together, candidate=batch.reshape(singles.shape))
    same = _distance(flat, allowance, flat.candidate, singles)
    values = "agree" if same.passed else "differ as well"
    return replace(judgement, reason=f"{judgement.reason}; the values, reshaped, {values}")


def judge_repeat(sides: Sides, repeat: Array) -> Judgement:
    """A second forward of the first inputs gives the same bits. repeat: float32 [M, C], M <= N.

    observed: how many values changed on the worst input.
    """
    first = replace(
        sides,
        names=sides.names[: len(repeat)],
        truth=sides.candidate[: len(repeat)],
        candidate=repeat,
        who="the second forward",
    )
    if _misshapen(first):
        return replace(judge_shape(first), metric="repeat")
    changed = _bits(first.candidate) != _bits(first.truth)
    count = changed.sum(axis=1).astype(np.float64)
    worst = int(np.argmax(count))
    furthest = linf(first.candidate, first.truth).max()
    reason = f"values changed by up to {furthest:.3g}" if changed.any() else ""
    gap = deviation(first.candidate, first.truth)[worst]
    return _judgement("repeat", first, count, np.zeros(len(count)), worst, gap, reason)


def _distance(sides: Sides, allowance: Allowance, candidate: Array, truth: Array) -> Judgement:
    if candidate.shape != truth.shape or _misshapen(sides):
        wrong = replace(sides, candidate=candidate, truth=truth)
        return replace(judge_shape(wrong), metric=allowance.metric)
    observed = METRICS[allowance.metric].measure(candidate, truth)
    worst = _worst(observed, allowance.values)
    gap = deviation(candidate, truth)[worst]
    judgement = _judgement(
        allowance.metric, sides, observed, allowance.values, worst, gap, allowance.reason, allowance
    )
    position = int(np.argmax(gap))
    pair = (float(candidate[worst, position]), float(truth[worst, position]))
    return replace(judgement, values=pair)


def _judgement(
    metric: str,
    sides: Sides,
    observed: Floats,
    allowed: Floats,
    worst: int,
    gap: Optional[Array],
    reason: str = "",
    allowance: Optional[Allowance] = None,
    scale: float = 1.0,
) -> Judgement:
    noise = float(allowance.noise[worst]) if allowance else None
    return Judgement(
        metric=metric,
        passed=bool(np.all(observed <= allowed)),
        observed=float(observed[worst]),
        allowed=float(allowed[worst]),
        reason=reason,
        input=sides.names[worst],
        position=None if gap is None else int(np.argmax(gap)),
        noise=noise,
        multiple=allowance.multiple if allowance else None,
        required=_required(observed, allowance.noise * scale) if allowance else None,
        who=sides.who,
        candidate_top=_top(sides.candidate[worst]),
        truth_top=_top(sides.truth[worst]),
    )


def _same(metric: str, sides: Sides, observed: object, expected: object) -> Judgement:
    passed = observed == expected
    reason = "" if passed else f"{metric} is {observed}, expected {expected}"
    return Judgement(metric, passed, float(not passed), 0.0, reason, who=sides.who)


def _misshapen(sides: Sides) -> bool:
    return bool(sides.candidate.shape != sides.truth.shape)


def _worst(observed: Floats, allowed: Floats) -> int:
    """Return the input that is nearest to its limit or farthest past it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(observed == 0, 0.0, observed / allowed)
    return int(np.argmax(_finite(share)))


def _finite(values: Array) -> Floats:
    return np.where(np.isnan(values), np.inf, values)


def _required(observed: Floats, noise: Floats) -> Optional[float]:
    """Return the multiple of the noise that would let every input pass, None if none would."""
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = float(np.where(observed == 0, 0.0, observed / noise).max())
    return needed if math.isfinite(needed) else None


def _swaps(sides: Sides, turned: Floats, allowed: Floats, metric: str) -> str:
    inside = [
        f"{sides.names[n]!r} ({turned[n]:.2g} of {allowed[n]:.2g})"
        for n in np.flatnonzero((turned > 0) & (turned <= allowed)).tolist()
    ]
    return f"{metric} swapped inside the noise on {', '.join(inside)}" if inside else ""


def _bits(values: Array) -> Indices:
    return np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)


def _top(row: Array) -> Top:
    return tuple((int(index), float(row[index])) for index in top_k(row[None], 5)[0])
