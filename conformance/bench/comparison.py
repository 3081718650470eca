"""One model on two OpenCV wheels: rounds of two processes, and what may be said of them.

Inferences of one process are not independent: its memory layout and the machine's mood are common
to all of them. So a process counts as one observation, its median, and a round is the ratio of two
processes side by side in time. The interval is that of the sign test on the rounds' ratios: exact
whatever their distribution, and deaf to a few rounds that something else on the machine spoilt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Optional, TypeVar

from conformance.errors import ConformanceError, install
from conformance.opencv.timing import Timing

CONFIDENCE = 0.95
# Fewer rounds give no interval of that confidence.
LEAST_ROUNDS = 6
# A layer is named where it costs this much of what all the layers took before.
NOTEWORTHY = 0.002

Round = tuple[Timing, Timing]
_T = TypeVar("_T")


@dataclass
class Comparison:
    """A model's rounds so far. pack: its digest. error: why it was given up, else empty."""

    model: str
    pack: str
    planned: int
    rounds: list[Round] = field(default_factory=list)
    error: str = ""

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


def require_statistics() -> None:
    """Raise ConformanceError where SciPy is missing, before hours of timing."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError as error:
        raise ConformanceError(
            f"comparing times needs SciPy ({error}): {install('bench')}"
        ) from error


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the median of independent `values` and its distribution-free interval."""
    from scipy.stats import quantile_test

    interval = quantile_test(values, p=0.5).confidence_interval(confidence)
    low, high = (None if math.isnan(end) else float(end) for end in interval)
    return Estimate(median(values), low, high)


def ratio(comparison: Comparison) -> Estimate:
    """Return how many times as long the second wheel takes as the first."""
    return estimate([b.median_ms / a.median_ms for a, b in comparison.rounds])


def typical_round(comparison: Comparison) -> Round:
    """Return the round whose ratio is the median one.

    Its times belong together. Medians over all processes need not, on a machine that changes its
    speed meanwhile: then A's can be that of a slow hour and B's that of a fast one.
    """
    return _middle(comparison.rounds, lambda pair: pair[1].median_ms / pair[0].median_ms)


def _middle(items: Sequence[_T], key: Callable[[_T], float]) -> _T:
    return sorted(items, key=key)[(len(items) - 1) // 2]


def alarm(comparison: Comparison, fail_above: float) -> bool:
    """Return whether the second wheel is shown to be slower by more than `fail_above`."""
    low = ratio(comparison).low if comparison.rounds else None
    return low is not None and low > fail_above


def verdict(comparison: Comparison, fail_above: float) -> str:
    """Return the comparison in words."""
    if comparison.error:
        return "error"
    if not comparison.rounds:
        return "interrupted"
    done = f"{len(comparison.rounds)} of {comparison.planned} rounds"
    unfinished = "" if comparison.complete else f"interrupted, in {done}: "
    found = ratio(comparison)
    if found.low is None or found.high is None:
        return unfinished + "too few rounds to tell"
    if found.low > fail_above:
        return unfinished + f"above {fail_above:g}"
    if found.low > 1:
        return unfinished + "slower"
    return unfinished + ("faster" if found.high < 1 else "no difference")


@dataclass(frozen=True)
class Part:
    """Where time went: one layer, or all layers of a type. Times in ms.

    first: with the first wheel, in the round of the median difference. difference: second wheel
    less first. share: of all that the layers together became slower, NaN where they did not.
    """

    name: str
    first: float
    difference: Estimate
    share: float


def layers(comparison: Comparison) -> list[Part]:
    """Return the layers, most slowed down first."""
    return _parts(comparison.rounds, lambda timing: timing.layers)


def layer_types(comparison: Comparison) -> list[Part]:
    """Return OpenCV's types of layer with the sums of their layers, most slowed down first."""

    def by_type(timing: Timing) -> dict[str, float]:
        sums: dict[str, float] = {}
        for name, ms in timing.layers.items():
            sums[timing.types[name]] = sums.get(timing.types[name], 0.0) + ms
        return sums

    return _parts(comparison.rounds, by_type)


def _parts(rounds: Sequence[Round], times: Callable[[Timing], Mapping[str, float]]) -> list[Part]:
    sides = [(times(a), times(b)) for a, b in rounds]
    names = dict.fromkeys(name for pair in sides for side in pair for name in side)
    whole = median([sum(b.values()) - sum(a.values()) for a, b in sides]) if sides else 0.0
    parts = []
    for name in names:
        # A wheel that fuses a layer away, or has none of that name, spends no time on it.
        pairs = [(a.get(name, 0.0), b.get(name, 0.0)) for a, b in sides]
        difference = estimate([b - a for a, b in pairs])
        first, _ = _middle(pairs, lambda pair: pair[1] - pair[0])
        share = difference.value / whole if whole > 0 else math.nan
        parts.append(Part(name, first, difference, share))
    return sorted(parts, key=lambda part: -part.difference.value)


def slowed(parts: Sequence[Part]) -> list[Part]:
    """Return the parts that are shown to have become slower, and by enough to matter."""
    matters = NOTEWORTHY * sum(part.first for part in parts)
    return [
        part
        for part in parts
        if part.difference.low is not None
        and part.difference.low > 0
        and part.difference.value >= matters
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values: every process's times and layers, and the ratio."""
    processes = [{**vars(timing)} for pair in comparison.rounds for timing in pair]
    types = {name: kind for process in processes for name, kind in process.pop("types").items()}
    found = ratio(comparison) if comparison.rounds else Estimate(math.nan, None, None)
    return {
        "model": comparison.model,
        "pack": comparison.pack,
        "complete": comparison.complete,
        "error": comparison.error or None,
        "ratio": found.value if comparison.rounds else None,
        "interval": [found.low, found.high],
        "confidence": CONFIDENCE,
        "types": types,
        "rounds": [list(pair) for pair in zip(processes[::2], processes[1::2])],
    }
