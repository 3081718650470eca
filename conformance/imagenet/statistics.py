"""What accuracies of two frameworks on the same images say, by SciPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.errors import imported

Array = np.ndarray[Any, Any]
CONFIDENCE = 0.95
# Below this the two frameworks do not agree.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Interval:
    """A share of 1, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Two frameworks on the same images.

    only_first, only_second: images that one alone has right. difference: first minus second.
    p_value: of McNemar's exact test.
    """

    only_first: int
    only_second: int
    difference: Interval
    p_value: float

    @property
    def agree(self) -> bool:
        """Whether the difference is one that chance explains."""
        return self.p_value >= SIGNIFICANT


def require_scipy() -> None:
    """Raise ConformanceError saying what to install where SciPy is missing."""
    _binomtest()


def _binomtest() -> Any:
    return imported("scipy.stats", "intervals and tests need SciPy", "imagenet").binomtest


def proportion(hits: int, count: int) -> Interval:
    """Return hits / count with its Wilson interval; all of 0..1 where count is 0."""
    if count == 0:
        return Interval(float("nan"), 0.0, 1.0)
    found = _binomtest()(hits, count).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / count, float(found.low), float(found.high))


def compare(first: Array, second: Array) -> Paired:
    """Compare two boolean arrays [N]: which images each framework has right.

    The interval is that of two shares, images only one has right, each exact (Clopper-Pearson)
    at half the error (Bonferroni): it holds for few and for no such images, too.
    """
    count = len(first)
    only = (int(np.sum(first & ~second)), int(np.sum(second & ~first)))
    if count == 0:
        return Paired(0, 0, Interval(float("nan"), -1.0, 1.0), 1.0)
    binomtest = _binomtest()
    each = 1 - (1 - CONFIDENCE) / 2
    a, b = (binomtest(hits, count).proportion_ci(each, method="exact") for hits in only)
    p_value = float(binomtest(only[0], sum(only), 0.5).pvalue) if any(only) else 1.0
    value = (only[0] - only[1]) / count
    return Paired(*only, Interval(value, float(a.low - b.high), float(a.high - b.low)), p_value)
