"""What processes might have measured, for the self-tests of comparisons, report and history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from conformance.bench.comparison import Comparison
from conformance.opencv.timing import Timing, Warm
from conformance.results.quantities import QUANTITIES

LIMITS = {quantity.key: quantity.limit for quantity in QUANTITIES}


def timing(
    median: float,
    threads: Sequence[int] = (2,),
    version: str = "4.0.0",
    memory: Optional[float] = 100.0,
    **layers: float,
) -> Timing:
    """Return a process whose warm inferences took about `median` ms on each number of threads."""
    times = [median * 0.98, median, median * 1.5]
    return Timing(
        version=version,
        engine="classic",
        threads=threads[0],
        load_ms=20.0,
        first_ms=30.0,
        memory_mib=memory,
        peak_mib=150.0,
        warm=[Warm(number, times, layers) for number in threads],
        types={name: "Convolution" if "conv" in name else "ReLU" for name in layers},
    )


def comparison(
    first: Sequence[float], second: Sequence[float], planned: Optional[int] = None
) -> Comparison:
    """Return a comparison, with two threads, of these medians of processes of two wheels."""
    rounds = [(timing(a), timing(b, version="4.1.0")) for a, b in zip(first, second)]
    return Comparison("mobilenet", "k:d", planned or len(rounds), (2,), [*rounds])
