"""What running a model costs, a table: bench, the suite's times, the report and history walk it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from conformance.opencv.timing import Timing

# Of a process and a number of threads; None where that process does not tell.
Measure = Callable[[Timing, int], Optional[float]]


@dataclass(frozen=True)
class Quantity:
    """One of the costs."""

    key: str  # in files; its unit behind the underscore
    title: str
    option: str  # of bench: the ratio of two OpenCVs above which it fails,
    limit: float  # and what that is by default
    words: tuple[str, str]  # for an OpenCV that needs more of it, and less
    measure: Measure

    @property
    def unit(self) -> str:
        """Its unit, "ms" or "MiB"."""
        return "MiB" if self.key.endswith("_mib") else "ms"

    @property
    def head(self) -> str:
        """Its short name with the unit, as a table has it, such as "load, ms"."""
        return f"{self.key.rpartition('_')[0]}, {self.unit}"


def median_of(times: Sequence[float]) -> float:
    """Return the median of a process's inferences, in their unit."""
    return float(np.median(times))


def p90_of(times: Sequence[float]) -> float:
    """Return their 90th percentile, between two of them where it falls there."""
    return float(np.percentile(times, 90))


def _begun(value: Callable[[Timing], Optional[float]]) -> Measure:
    """Return the measure of what a process does once, with the threads that it began with."""
    return lambda timing, threads: value(timing) if timing.threads == threads else None


def _warm(value: Callable[[Sequence[float]], float]) -> Measure:
    def measure(timing: Timing, threads: int) -> Optional[float]:
        warm = timing.warm_on(threads)
        return None if warm is None else value(warm.times_ms)

    return measure


_TIME = ("slower", "faster")
LOAD = Quantity(
    *("load_ms", "reading the file", "--fail-load-above", 1.25, _TIME),
    measure=_begun(lambda timing: timing.load_ms),
)
FIRST = Quantity(
    *("first_ms", "first inference", "--fail-first-above", 1.25, _TIME),
    measure=_begun(lambda timing: timing.first_ms),
)
WARM = Quantity("warm_ms", "warm inference", "--fail-above", 1.10, _TIME, _warm(median_of))
P90 = Quantity("p90_ms", "90th percentile", "--fail-p90-above", 1.20, _TIME, _warm(p90_of))
MEMORY = Quantity(
    *("memory_mib", "memory", "--fail-memory-above", 1.20, ("more", "less")),
    measure=_begun(lambda timing: timing.memory_mib),
)
QUANTITIES = (LOAD, FIRST, WARM, P90, MEMORY)
# Those of which a process tells one value only.
ONCE = (LOAD, FIRST, MEMORY)
BY_KEY = {quantity.key: quantity for quantity in QUANTITIES}
