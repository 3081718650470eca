"""Packs that are built while those that are there are used already."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from conformance.processes.progress import Event, Report, about

from .pool import UNASKED, Job, Pool

# Gives what events are told to, for a while: of so many jobs so many are done.
Shown = Callable[[int, int], AbstractContextManager[Report]]


@dataclass
class Building:
    """A pool at work on a thread of its own; its events are told on the caller's, when it asks.

    failures: {job: message} of those that failed.
    """

    pool: Pool
    shown: Shown
    failures: dict[str, str] = field(default_factory=dict)
    _events: queue.Queue[Optional[Event]] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self._left = {job.name: job for job in self.pool.pending}
        self._jobs = dict(self._left)
        self._ends: dict[str, float] = {}  # when those that were begun are expected to be done
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for event in self.pool.events():
            self._events.put(event)
        self._events.put(None)

    def is_done(self, name: str) -> bool:
        """Whether nobody has to wait for it, as far as was told."""
        return name not in self._left

    def seconds_until(self, name: str) -> float:
        """Return about how long one has to wait for it; infinity where it has not begun."""
        if self.is_done(name):
            return 0.0
        return max(1.0, self._ends.get(name, math.inf) - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether nothing is being built any more, as far as was told."""
        return not self._left

    def wait(self, name: str) -> None:
        """Return when the job is done, one way or the other; tell what comes meanwhile."""
        if name in self._left:
            self._tell(lambda: name in self._left)

    def wait_for_all(self) -> None:
        """Return when all jobs are done."""
        self._tell(lambda: bool(self._left))

    @contextmanager
    def room(self, memory: int) -> Iterator[None]:
        """Keep so many bytes free of builders: wait for them, and tell what comes meanwhile."""
        self.pool.reserved = max(0, memory - UNASKED)
        try:
            if not self.pool.has_room():
                self._tell(lambda: not self.pool.has_room())
            yield
        finally:
            self.pool.reserved = 0

    def tell(self) -> None:
        """Tell what has come since the last time, without waiting."""
        if not self._events.empty():
            self._tell(lambda: not self._events.empty())

    def close(self) -> None:
        """Stop what is still being built."""
        self.pool.close()
        self._thread.join()

    def _tell(self, go_on: Callable[[], bool]) -> None:
        total = len(self._jobs)
        with self.shown(total - len(self._left), total) as report:
            while go_on():
                event = self._events.get()
                if event is None:  # the pool was closed
                    self.failures.update(dict.fromkeys(self._left, "its builder was stopped"))
                    self._left.clear()
                else:
                    report(self._noted(event))

    def _noted(self, event: Event) -> Event:
        if not event.final:
            if event.model in self._left:
                seconds = self._jobs[event.model].seconds - event.seconds
                self._ends[event.model] = time.monotonic() + seconds
            return event
        if event.state == "failed":
            self.failures[event.model] = event.step
        self._left.pop(event.model, None)
        done, total = len(self._jobs) - len(self._left), len(self._jobs)
        left = f", about {about(self._seconds_left())} to go" if self._left else ""
        return replace(event, step=f"{event.step}, {done} of {total}{left}")

    def _seconds_left(self) -> float:
        """Return about how long the others take, at the pace so far."""
        left = sum(min(job.seconds, self.seconds_until(name)) for name, job in self._left.items())
        done = seconds_of(self._jobs.values(), 1) - left
        pace = (time.monotonic() - self._began) / done if done else 1 / self.pool.at_once
        return left * pace


def seconds_of(jobs: Iterable[Job], at_once: int) -> float:
    """Return about how many seconds so many builders take for the jobs."""
    return sum(job.seconds for job in jobs) / max(1, at_once)
