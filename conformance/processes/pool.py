"""A pool of new processes, for functions instead of modules."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Optional

from conformance.errors import ConformanceError


def _begin(initializer: Optional[Callable[[], None]]) -> None:
    """Have this process end with its parent, which may be killed before it says so."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def process_pool(
    workers: int, failure: str, initializer: Optional[Callable[[], None]] = None
) -> Iterator[ProcessPoolExecutor]:
    """Give the pool; raise ConformanceError, `failure` first, where a process is killed.

    initializer: what each process calls first.
    """
    context = get_context("spawn")  # TensorFlow does not survive a fork
    begin = partial(_begin, initializer)
    try:
        with ProcessPoolExecutor(workers, context, begin) as pool:
            yield pool
    except BrokenProcessPool:
        raise ConformanceError(f"{failure}: a process was killed (out of memory?)") from None
