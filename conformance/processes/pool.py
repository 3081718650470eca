"""A pool of new processes, for functions instead of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Optional

from conformance.errors import ConformanceError


@contextmanager
def process_pool(
    workers: int, failure: str, initializer: Optional[Callable[[], None]] = None
) -> Iterator[ProcessPoolExecutor]:
    """Give the pool; raise ConformanceError, `failure` first, where a process is killed.

    initializer: what each process calls first.
    """
    context = get_context("spawn")  # TensorFlow does not survive a fork
    try:
        with ProcessPoolExecutor(workers, context, initializer) as pool:
            yield pool
    except BrokenProcessPool:
        raise ConformanceError(f"{failure}: a process was killed (out of memory?)") from None
