"""Where time went between two OpenCV wheels: the layers, and types of layer, that became slower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Callable

from conformance.opencv.timing import Timing

from .comparison import Comparison, Estimate, estimate, middle

# A layer is named where it costs this much of what all the layers took before.
NOTEWORTHY = 0.002
Times = Callable[[Timing], Mapping[str, float]]


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


def layers(comparison: Comparison, threads: int) -> list[Part]:
    """Return the layers, most slowed down first."""
    return _parts(comparison, lambda timing: _of_layers(timing, threads))


def layer_types(comparison: Comparison, threads: int) -> list[Part]:
    """Return OpenCV's types of layer with the sums of their layers, most slowed down first."""

    def by_type(timing: Timing) -> dict[str, float]:
        sums: dict[str, float] = {}
        for name, ms in _of_layers(timing, threads).items():
            sums[timing.types[name]] = sums.get(timing.types[name], 0.0) + ms
        return sums

    return _parts(comparison, by_type)


def _of_layers(timing: Timing, threads: int) -> Mapping[str, float]:
    warm = timing.warm_on(threads)
    return warm.layers if warm else {}


def _parts(comparison: Comparison, times: Times) -> list[Part]:
    sides = [(times(timings[0]), times(timings[-1])) for timings in comparison.rounds]
    names = dict.fromkeys(name for pair in sides for side in pair for name in side)
    whole = median([sum(b.values()) - sum(a.values()) for a, b in sides]) if sides else 0.0
    parts = []
    for name in names:
        # A wheel that fuses a layer away, or has none of that name, spends no time on it.
        pairs = [(a.get(name, 0.0), b.get(name, 0.0)) for a, b in sides]
        difference = estimate([b - a for a, b in pairs])
        first, _ = middle(pairs, lambda pair: pair[1] - pair[0])
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
