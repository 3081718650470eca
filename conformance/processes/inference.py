"""An inference that is timed, the same for both sides: an array in, an array out, warm."""

from __future__ import annotations

import time
from typing import Any, Callable

import numpy as np

from .serve import Request

Array = np.ndarray[Any, Any]
Infer = Callable[[], Array]

# The first inference allocates, the next ones still warm caches and clocks.
WARM_UP = 3


def repeated(images: Array, batch: int) -> Array:
    """Return `batch` images, those of [N, H, W, C] from the first on, again and again."""
    return np.asarray(images[np.arange(batch) % len(images)])


def clocked(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `run` gives and the ms that it takes."""
    begin = time.perf_counter()
    given = run()
    return given, (time.perf_counter() - begin) * 1000


def timed(infer: Infer, warm: bool) -> tuple[Array, float]:
    """Return the answer and the ms that it took; unless `warm`, those of the second time."""
    if not warm:
        infer()
    return clocked(infer)


def warm_up(infer: Infer) -> Array:
    """Run the first, untypical inferences; return the last one's answer."""
    for _ in range(WARM_UP - 1):
        infer()
    return infer()


def answer_shard(
    request: Request,
    batch: int,
    prepare: Callable[[Array], Array],
    infer: Callable[[Array], Array],
    classes: int,
) -> dict[str, Any]:
    """Run request["pixels"] (a file, uint8 [N, S, S, 3]) in batches into request["outputs"].

    prepare: makes of pixels what `infer` takes. Returns {"seconds": of the inferences alone}.
    Raises ValueError for an output of another shape than [images, classes].
    """
    pixels = np.load(request["pixels"], mmap_mode="r", allow_pickle=False)
    outputs = np.empty((len(pixels), classes), np.float32)
    seconds = 0.0
    for begin in range(0, len(pixels), batch):
        taken = prepare(np.asarray(pixels[begin : begin + batch]))
        start = time.perf_counter()
        given = infer(taken)
        seconds += time.perf_counter() - start
        expected = (len(taken), classes)
        if given.shape != expected:
            raise ValueError(f"the output has the shape {given.shape} instead of {expected}")
        outputs[begin : begin + batch] = given
    np.save(request["outputs"], outputs)
    return {"seconds": seconds}
