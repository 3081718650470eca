"""What both sides mean by an inference that is timed: an array in, an array out, warm."""

from __future__ import annotations

import time
from typing import Any, Callable

import numpy as np

Array = np.ndarray[Any, Any]
Infer = Callable[[], Array]

# The first inference allocates, the next ones still warm caches and clocks.
WARM_UP = 3


def repeated(images: Array, batch: int) -> Array:
    """Return `batch` images, those of [N, H, W, C] from the first on, again and again."""
    return np.asarray(images[np.arange(batch) % len(images)])


def timed(infer: Infer, warm: bool) -> tuple[Array, float]:
    """Return the answer and the ms that it took; unless `warm`, those of the second time."""
    for _ in range(1 if warm else 2):
        begin = time.perf_counter()
        answer = infer()
        milliseconds = (time.perf_counter() - begin) * 1000
    return answer, milliseconds


def warm_up(infer: Infer) -> Array:
    """Run the first, untypical inferences; return the last one's answer."""
    for _ in range(WARM_UP - 1):
        infer()
    return infer()
