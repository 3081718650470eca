"""One model on a row of OpenCV wheels: rounds of a process each, and what may be said of them.

Inferences of one process are not independent: its memory layout and the machine's mood are common
to all of them. So a process counts as one observation of each quantity, and a round gives the
ratio of two processes that ran one after the other. The interval is that of the signed-rank test
on the logarithms of the rounds' ratios: exact where these lie symmetrically, as those of processes
that go first in turn do, and hard of hearing to a few rounds that something else on the machine
spoilt.

Warm inferences with all numbers of threads together are one more quantity: a change of a few
per cent, which each by itself is too noisy for, shows there. It gets a fifth of what may be wrong.

A table of many quantities would have a word such as "slower" by chance. So its intervals are as
wide as it takes for all of them together (Bonferroni): of twenty tables of OpenCVs that are alike,
one has a "slower", and one a "faster".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import accumulate
from statistics import geometric_mean, median
from typing import Any, Callable, Optional, TypeVar

from conformance.errors import imported
from conformance.opencv.timing import Timing
from conformance.results.quantities import QUANTITIES, WARM, Quantity

CONFIDENCE = 0.95
# How often a table may have a word that is not true: that something needs more; as often, less.
ERROR = 0.05
# The share of that which warm inferences with all numbers of threads together get.
_TOGETHER = 0.2
# A ratio nearer to 1 matters to nobody: two environments differ by a page of memory.
NOTEWORTHY = 1.005

Round = tuple[Timing, ...]  # of each wheel, in the row's order
Limits = Mapping[str, float]  # by Quantity.key
T = TypeVar("T")


@dataclass
class Comparison:
    """A model's rounds so far."""

    model: str
    pack: str  # its digest
    planned: int  # rounds; each begins with one of the numbers of threads, in turn
    threads: Sequence[int]  # numbers of them
    rounds: list[Round] = field(default_factory=list)
    error: str = ""  # why it was given up, if it was

    @property
    def complete(self) -> bool:
        """Whether all the rounds were run."""
        return len(self.rounds) == self.planned


@dataclass(frozen=True)
class Estimate:
    """A median over rounds and the interval that holds the true one, None with too few rounds."""

    value: float
    low: Optional[float]
    high: Optional[float]


@dataclass(frozen=True)
class Finding:
    """How many times as much of a quantity a wheel needs as the one before it in the row."""

    place: int  # of the first of the two wheels in the row
    quantity: Quantity
    threads: Optional[int]  # None: with all numbers of them, their geometric mean
    sides: tuple[float, float]  # of both, in the round whose ratio is the median one
    ratio: Estimate
    rounds: int


def require_statistics() -> None:
    """Raise ConformanceError where SciPy is missing, before hours of timing."""
    imported("scipy.stats", "comparing times needs SciPy ({error})", "bench")


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the middle of independent `values` that lie symmetrically about it, and its interval.

    The median of the means of all pairs, and two of these means in order of size (Hodges and
    Lehmann, 1963): those that the signed-rank test would just not reject.
    """
    means = sorted((a + b) / 2 for place, a in enumerate(values) for b in values[place:])
    outside = _ranks_outside(len(values), (1 - confidence) / 2)
    low, high = (means[outside - 1], means[-outside]) if outside else (None, None)
    return Estimate(median(means), low, high)


@cache
def _ranks_outside(count: int, error: float) -> int:
    """Return how many rank sums, from 0 on, come up in at most `error` of all cases together.

    Of the signed-rank test of `count` values: each rank is in the sum or not, both as likely.
    """
    cases = [1]  # by rank sum
    for rank in range(1, count + 1):
        without, added = cases + [0] * rank, [0] * rank + cases
        cases = [a + b for a, b in zip(without, added)]
    return sum(total <= error * 2**count for total in accumulate(cases))


def confidence_of(threads: Sequence[int], together: bool = False) -> float:
    """Return the confidence of each interval of a table with these numbers of threads.

    together: of the one of all numbers of them.
    """
    share = _TOGETHER if len(threads) > 1 else 0.0
    if together:
        return 1 - 2 * ERROR * share
    return 1 - 2 * ERROR * (1 - share) / (len(QUANTITIES) * len(threads))


def least_rounds(threads: Sequence[int]) -> int:
    """Return how many rounds it takes for intervals of that confidence."""
    # Where all n ratios lie on one side the signed-rank test's p-value is 2 / 2^n.
    for_each = math.ceil(1 - math.log2(1 - confidence_of(threads)))
    return for_each * len(threads)


def findings(comparison: Comparison) -> list[Finding]:
    """Return what the rounds say of each pair of neighbours, quantity and number of threads.

    What no round tells is left out, such as memory where the system does not tell it.
    """
    wheels = len(comparison.rounds[0]) if comparison.rounds else 0
    found = (
        _finding(comparison, place, quantity, threads)
        for place in range(wheels - 1)
        for quantity in QUANTITIES
        for threads in _numbers(quantity, comparison.threads)
    )
    return [finding for finding in found if finding is not None]


def _numbers(quantity: Quantity, threads: Sequence[int]) -> tuple[Optional[int], ...]:
    return (*threads, None) if quantity is WARM and len(threads) > 1 else tuple(threads)


def _finding(
    comparison: Comparison, place: int, quantity: Quantity, threads: Optional[int]
) -> Optional[Finding]:
    counts = comparison.threads if threads is None else [threads]
    pairs = []
    for timings in comparison.rounds:
        first, second = (_measured(quantity, t, counts) for t in timings[place : place + 2])
        # Too little to be measured is no ratio either.
        if first and second:
            pairs.append((first, second))
    if not pairs:
        return None
    logs = [math.log(second / first) for first, second in pairs]
    found = estimate(logs, confidence_of(comparison.threads, threads is None))
    middle_log, low, high = found.value, found.low, found.high
    ratio = Estimate(
        math.exp(middle_log),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
    )
    # Both sides of one round, which belong together. Medians over all rounds need not, on a
    # machine that changes its speed meanwhile.
    sides = middle(pairs, lambda pair: pair[1] / pair[0])
    return Finding(place, quantity, threads, sides, ratio, len(pairs))


def _measured(quantity: Quantity, timing: Timing, counts: Sequence[int]) -> Optional[float]:
    """Return the geometric mean of what is measured with each number of threads, None without."""
    values = [quantity.measure(timing, threads) for threads in counts]
    told = [value for value in values if value]
    return geometric_mean(told) if len(told) == len(values) else None


def middle(items: Sequence[T], key: Callable[[T], float]) -> T:
    """Return the item whose key is the median one."""
    return sorted(items, key=key)[(len(items) - 1) // 2]


def typical(comparison: Comparison, place: int, quantity: Quantity, threads: int) -> float:
    """Return the median over the rounds of what a wheel needs, NaN where none tells."""
    measured = (quantity.measure(timings[place], threads) for timings in comparison.rounds)
    values = [value for value in measured if value is not None]
    return median(values) if values else math.nan


def alarm(finding: Finding, limits: Limits) -> bool:
    """Return whether the second wheel is shown to need more than the quantity's limit allows."""
    return finding.ratio.low is not None and finding.ratio.low > limits[finding.quantity.key]


def relief(finding: Finding, limits: Limits) -> bool:
    """Return whether it is shown to need as much less."""
    return finding.ratio.high is not None and finding.ratio.high < 1 / limits[finding.quantity.key]


def verdict(finding: Finding, limits: Limits) -> str:
    """Return the finding in words."""
    low, high = finding.ratio.low, finding.ratio.high
    more, less = finding.quantity.words
    if low is None or high is None:
        return "too few rounds to tell"
    if alarm(finding, limits):
        return f"above {limits[finding.quantity.key]:g}"
    if low > 1 and finding.ratio.value >= NOTEWORTHY:
        return more
    return less if high < 1 and finding.ratio.value <= 1 / NOTEWORTHY else "no difference"


def as_json(comparison: Comparison, limits: Limits) -> dict[str, Any]:
    """Return the comparison as plain values: what every process measured, and what was found."""
    processes = [[asdict(timing) for timing in timings] for timings in comparison.rounds]
    types: dict[str, str] = {}
    for process in (process for timings in processes for process in timings):
        types |= process.pop("types")
    return {
        "model": comparison.model,
        "pack": comparison.pack,
        "complete": comparison.complete,
        "error": comparison.error or None,
        "confidence": confidence_of(comparison.threads),
        "findings": [_finding_json(one, limits) for one in findings(comparison)],
        "types": types,
        "rounds": processes,
    }


def _finding_json(finding: Finding, limits: Limits) -> dict[str, Any]:
    return {
        "wheels": [finding.place, finding.place + 1],
        "quantity": finding.quantity.key,
        "threads": finding.threads,
        "sides": list(finding.sides),
        "ratio": finding.ratio.value,
        "interval": [finding.ratio.low, finding.ratio.high],
        "rounds": finding.rounds,
        "limit": limits[finding.quantity.key],
        "verdict": verdict(finding, limits),
    }
