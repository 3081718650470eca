"""The peak memory of a process and all that it starts, together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

_INTERVAL = 0.2  # seconds between two looks
# To tell PSS or USS the kernel walks all pages, which for 8 GiB takes a quarter of a core. It is
# asked only where resident memory, which is counted anyway, is by so much more than before.
_MORE = 1.01


@dataclass
class Peak:
    """The most memory that was seen so far, in bytes."""

    bytes: int = 0


@contextmanager
def peak_of_tree(pid: int) -> Iterator[Peak]:
    """Look at a process and all its descendants every 0.2 s until the block ends.

    What the peak counts is PSS (a page that n processes share counts as 1/n for each), on Linux;
    elsewhere USS, what each has to itself. A process that is gone counts as nothing.
    """
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        most = 0
        while not ended.wait(_INTERVAL):
            resident = _of_tree(pid, _resident)
            if resident > most * _MORE:
                most, peak.bytes = resident, max(peak.bytes, _of_tree(pid, _own))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _of_tree(pid: int, memory: Callable[[psutil.Process], int]) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):
                total += memory(process)
    return total


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _own(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.uss))
