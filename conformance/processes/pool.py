"""A pool of new processes, for functions instead of modules."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Optional

from conformance.errors import ConformanceError

_STARTING = 60.0  # seconds that a new process is waited for, if it neither begins nor ends


class _Process(SpawnProcess):
    """A process that Ctrl-C ends without a word: its parent, which has it too, does the talking.

    Python would tell where it was, as TensorFlow does by errors of its own.
    """

    def start(self) -> None:
        """Start it, and let Ctrl-C wait until it has begun: half a message would be told, too."""
        try:
            with _interrupt_held():
                begun, self._begin = Pipe(duplex=False)
                with _interrupt_blocked():
                    super().start()
                self._begin.close()
                wait([begun, self.sentinel], _STARTING)
        except KeyboardInterrupt:
            if self.pid is not None:
                self.terminate()  # the pool does not know it yet
            raise

    def run(self) -> None:
        """Say that it has begun, and do what it was started for."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._begin.close()
        super().run()


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Have a process that is started in the block begin with SIGINT blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block; a mask is no help where there are more threads."""
    handler = signal.getsignal(signal.SIGINT)
    heeded = handler not in (None, signal.SIG_IGN)  # ignored: by nohup, say, for children, too
    if threading.current_thread() is not threading.main_thread() or not heeded:
        yield
        return
    held: list[object] = []
    signal.signal(signal.SIGINT, lambda *_: held.append(None))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


class _Context(SpawnContext):
    """New interpreters, as TensorFlow does not survive a fork."""

    Process = _Process


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
    begin = partial(_begin, initializer)
    try:
        with ProcessPoolExecutor(workers, _Context(), begin) as pool:
            yield pool
    except BrokenProcessPool:
        raise ConformanceError(f"{failure}: a process was killed (out of memory?)") from None
