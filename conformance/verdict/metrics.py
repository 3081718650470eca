"""Distances and rankings, one number for each input. NumPy only, vectorised, NaN never passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def apart(candidate: Array, reference: Array) -> Floats:
    """Return |candidate - reference| in float64; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(candidate.astype(np.float64) - reference.astype(np.float64)))


def deviation(candidate: Array, reference: Array) -> Floats:
    """Return |candidate - reference| in float64, shape [N, C]; inf where either is not finite.

    Infinity rather than NaN: it is greater than every limit and survives max and sum.
    """
    if candidate.shape != reference.shape:
        raise ValueError(f"shapes differ: {candidate.shape} and {reference.shape}")
    difference = apart(candidate, reference)
    difference[~np.isfinite(difference)] = np.inf
    return difference


def l1_sum(candidate: Array, reference: Array) -> Floats:
    """Return the sum over the classes of |difference|, shape [N]: the tutorial's L1."""
    return np.asarray(deviation(candidate, reference).sum(axis=1))


def l1_mean(candidate: Array, reference: Array) -> Floats:
    """Return the mean over the classes of |difference|, shape [N]."""
    return np.asarray(deviation(candidate, reference).mean(axis=1))


def linf(candidate: Array, reference: Array) -> Floats:
    """Return the greatest |difference| over the classes, shape [N]."""
    return np.asarray(deviation(candidate, reference).max(axis=1))


def rms(candidate: Array, reference: Array) -> Floats:
    """Return the root mean square of the difference over each row, shape [N]."""
    return np.asarray(np.sqrt((deviation(candidate, reference) ** 2).mean(axis=1)))


@dataclass(frozen=True)
class Metric:
    """A distance and what it is applied to.

    arrays: the packs' ``outputs_*`` (softmax), ``logits_*``, or "layers", a node's samples [1, S].
    """

    name: str
    arrays: str
    measure: Callable[[Array, Array], Floats]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("softmax_l1_sum", "outputs", l1_sum),
        Metric("softmax_l1_mean", "outputs", l1_mean),
        Metric("softmax_linf", "outputs", linf),
        Metric("output_l1_sum", "outputs", l1_sum),
        Metric("output_l1_mean", "outputs", l1_mean),
        Metric("output_linf", "outputs", linf),
        Metric("logits_l1_mean", "logits", l1_mean),
        Metric("logits_linf", "logits", linf),
        Metric("frozen_l1_sum", "outputs", l1_sum),
        Metric("batch_linf", "outputs", linf),
        Metric("layer_rms", "layers", rms),
    )
}


def top_k(values: Array, k: int) -> Indices:
    """Return the indices of the `k` greatest values of each row, greatest first: int64 [N, k].

    Of equal values the lower index comes first; NaN comes last.
    """
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")
    return order[:, :k].astype(np.int64)


def inversions(truth: Array, ranking: Indices) -> Floats:
    """Return, rank by rank, how far `truth` has a class left over above the class chosen: [N, k].

    ranking: int [N, k], the candidate's classes, best first. Zero where the candidate chose a class
    that `truth` ranks highest, or equal to the highest, among those not chosen before.
    """
    left = truth.astype(np.float64)
    rows = np.arange(len(left))
    columns = []
    for chosen in ranking.T:
        columns.append(left.max(axis=1) - left[rows, chosen])
        left[rows, chosen] = -np.inf
    return np.stack(columns, axis=1)
