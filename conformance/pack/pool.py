"""Builders side by side: processes that are told, one model after the other, what to build.

A builder keeps its framework from model to model. One takes the models of much memory, the others
first those that are soon done, for early verdicts, then those that take long, so that all end at
about the same time. A model is begun only where there is memory for it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Optional

from conformance.processes.child import REUSED_HEAP, Child, child_environment, last_lines
from conformance.processes.machine import (
    available_bytes,
    cores,
    give_way,
    resident_bytes,
    sharing_workers,
)
from conformance.processes.progress import Event, decode

# Of 8 GiB in all. Of the rest what judges may take a part without asking for room.
MEMORY = 6 << 30
UNASKED = 1 << 30
# Above this a builder is stopped: what it did is lost, and estimates are of no finer grain.
_TOLERATED = 1.15
_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """A model to be built: its name, in events too, and the command line of its builder.

    One builder does all jobs of the same command, each when it reads the name on its stdin. legacy:
    with tf_keras. seconds, on one core, and memory, in bytes: about what it takes.
    """

    name: str
    command: tuple[str, ...]
    legacy: bool = False
    seconds: float = 20.0
    memory: int = 2 << 30


@dataclass
class _Builder:
    """A running process, and the job that it is at."""

    child: Child
    command: tuple[str, ...]
    job: Optional[Job] = None
    began: float = 0.0
    last: Optional[Event] = None  # of its job
    is_heard: bool = False  # whether it ever said anything


@dataclass
class Pool:
    """Builders of some jobs.

    at_once: builders. memory: bytes that they may take together, with what is reserved for others.
    """

    pending: list[Job]
    verbose: bool = False  # let their log through
    at_once: int = 0
    memory: int = 0
    reserved: int = 0
    _finished: int = 0
    _builders: list[_Builder] = field(default_factory=list)
    _put_off: dict[str, float] = field(default_factory=dict)  # until when
    _arrived: queue.Queue[tuple[_Builder, Optional[Event]]] = field(default_factory=queue.Queue)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        share = sharing_workers()  # each has a pool
        self.at_once = self.at_once or max(1, min(cores() // share, len(self.pending)))
        self.memory = self.memory or min(MEMORY, available_bytes() * 3 // 4) // share

    def events(self) -> Iterator[Event]:
        """Yield the events as they come; exactly one of each job is final (`Event.final`).

        "failed" with the message for the user included: a builder that dies takes down the model it
        was at, and a new one goes on with the rest. Closing the generator stops the builders.
        """
        try:
            while not self._closed.is_set() and (self.pending or self._busy()):
                self._hand_out()
                with suppress(queue.Empty):
                    yield from self._took(*self._arrived.get(timeout=_TICK_SECONDS))
                yield from self._keep_to_memory()
        finally:
            self.close()
            for builder in self._builders:
                builder.child.close()

    def close(self) -> None:
        """End the builders; any thread may."""
        self._closed.set()
        for builder in self._builders:
            builder.child.kill()

    def _busy(self) -> list[_Builder]:
        return [builder for builder in self._builders if builder.job is not None]

    def has_room(self) -> bool:
        """Whether what is reserved is free of builders."""
        busy = [] if self._closed.is_set() else self._expected()
        return not busy or self._left_beside(busy) >= 0

    def _left_beside(self, busy: Sequence[Job]) -> int:
        return self.memory - self.reserved - sum(job.memory for job in busy)

    def _expected(self) -> list[Job]:
        """Return what is being built, with the memory that it takes by now where that is more."""
        busy = [(builder.job, builder.child.process.pid) for builder in self._builders]
        return [_as_it_is(job, pid) for job, pid in busy if job is not None]

    def _hand_out(self) -> None:
        """Give whoever is free the next job that may be begun now."""
        while self.pending and len(self._busy()) < self.at_once:
            job = self._next()
            if job is None:
                return
            self.pending.remove(job)
            builder = self._builder(job)
            builder.job, builder.began, builder.last = job, time.monotonic(), None
            with suppress(OSError):  # it is gone, as its events will tell
                assert builder.child.process.stdin is not None
                print(job.name, file=builder.child.process.stdin, flush=True)

    def _next(self) -> Optional[Job]:
        now = time.monotonic()
        free = [job for job in self.pending if self._put_off.get(job.name, 0) < now]
        busy = self._expected()
        left = self._left_beside(busy)
        if not busy and not self.reserved:
            left = max([left, *(job.memory for job in free)])  # alone, however large it is
        return choose(free, busy, left, self._finished < self.at_once)

    def _builder(self, job: Job) -> _Builder:
        """Return an idle builder of the job's command, started where there is none."""
        for builder in [b for b in self._builders if b.job is None]:
            if builder.command == job.command:
                return builder
            builder.child.close()
            self._builders.remove(builder)
        threads = str(max(1, cores() // self.at_once))
        environment = child_environment(
            TF_USE_LEGACY_KERAS=str(int(job.legacy)),
            TF_NUM_INTRAOP_THREADS=os.environ.get("TF_NUM_INTRAOP_THREADS", threads),
            TF_NUM_INTEROP_THREADS=os.environ.get("TF_NUM_INTEROP_THREADS", threads),
            **REUSED_HEAP,
        )
        child = Child(job.command, environment, piped=True, shown=self.verbose)
        # Who judges meanwhile goes first: verdicts come early, and less is left for one core alone.
        give_way(child.process.pid)
        builder = _Builder(child, job.command)
        self._builders.append(builder)
        threading.Thread(target=self._listen, args=(builder,), daemon=True).start()
        return builder

    def _listen(self, builder: _Builder) -> None:
        assert builder.child.process.stdout is not None
        with suppress(ValueError, OSError):  # its files are closed
            for line in builder.child.process.stdout:
                try:
                    self._arrived.put((builder, decode(line)))
                except ValueError:
                    builder.child.log.write(line.encode())
        self._arrived.put((builder, None))

    def _took(self, builder: _Builder, event: Optional[Event]) -> Iterator[Event]:
        """Note what a builder said, None at its end, and yield what is to be told."""
        if builder not in self._builders:
            return  # it was stopped
        if event is None:
            yield from self._ended(builder)
            return
        job, builder.last, builder.is_heard = builder.job, event, True
        assert job is not None
        if event.state == "waiting":
            builder.job = None
            self.pending.append(job)
            said = job.name in self._put_off
            self._put_off[job.name] = time.monotonic() + _TICK_SECONDS
            if said:
                return
        elif event.final:
            builder.job = None
            self._finished += 1
        yield event

    def _ended(self, builder: _Builder) -> Iterator[Event]:
        self._builders.remove(builder)
        ending = builder.child.ending()
        builder.child.close()
        if builder.job is None:
            return
        lost = [builder.job]
        if not builder.is_heard:
            # It died before it began anything: a second try would fare no better.
            lost += [job for job in self.pending if job.command == builder.command]
            self.pending = [job for job in self.pending if job not in lost]
        step, seconds = (
            (builder.last.step, builder.last.seconds) if builder.last else ("starting", 0)
        )
        text = f"the builder {ending.how} at step {step!r}.{last_lines(ending.log)}"
        for job in lost:
            yield Event(job.name, text, seconds, "failed")

    def _keep_to_memory(self) -> Iterator[Event]:
        """Stop whoever began last where builders take more together than was expected of them."""
        busy = self._busy()
        if len(busy) < 2:
            return
        taken = sum(resident_bytes(builder.child.process.pid) for builder in busy)
        if taken <= self.memory * _TOLERATED:
            return
        last = max(busy, key=lambda builder: builder.began)
        assert last.job is not None
        # With what is expected of it now it is begun beside a smaller one, or alone.
        expected = _as_it_is(last.job, last.child.process.pid)
        self.pending.append(replace(expected, memory=expected.memory * 5 // 4))
        self._builders.remove(last)
        last.child.close()
        seconds = time.monotonic() - last.began
        text = f"put off: {taken / (1 << 30):.1f} GiB are taken, of {self.memory / (1 << 30):.1f}"
        yield Event(last.job.name, text, seconds)


def _as_it_is(job: Job, session: int) -> Job:
    """Return the job with the memory that its builder has by now, where that is more."""
    return replace(job, memory=max(job.memory, resident_bytes(session)))


def choose(
    pending: Sequence[Job], busy: Sequence[Job], left: int, quick: bool = False
) -> Optional[Job]:
    """Return the job to begin beside those that are running, None where none fits in `left` bytes.

    That of most memory, where no other such is running, else the longest, or the quickest.
    """
    fit = [job for job in pending if job.memory <= left]
    if not fit:
        return None
    largest = max([*pending, *busy], key=lambda job: job.memory)
    if largest in fit:
        return largest
    return min(fit, key=lambda job: job.seconds if quick else -job.seconds)
