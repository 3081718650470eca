"""How a long job says where it is: a live line, plain lines, or one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Callable

from .serve import own_standard_output

STYLES = ("auto", "plain", "json")
# The states after which nothing more is said of a model.
FINAL = ("built", "found", "failed")


@dataclass(frozen=True)
class Event:
    """One step of one model's job.

    step: what is being done now, or the message of a failure. seconds: since the model's job
    began. state: "working", "waiting" (another process has the lock), "built", "found" (there
    was nothing to do) or "failed".
    """

    model: str
    step: str
    seconds: float
    state: str = "working"

    @property
    def final(self) -> bool:
        """Whether this is the last event of its model."""
        return self.state in FINAL

    def __str__(self) -> str:
        return f"{self.model}: {self.step} ({self.seconds:.1f} s)"


Report = Callable[[Event], None]


def encode(event: Event) -> str:
    """Return the event as one line of JSON, without the line end."""
    fields = asdict(event)
    fields["seconds"] = round(event.seconds, 3)
    return json.dumps(fields)


def decode(line: str) -> Event:
    """Return the event of one line of JSON; raise ValueError if it is none."""
    fields = json.loads(line)
    try:
        return Event(**fields)
    except TypeError as error:
        raise ValueError(f"not a progress event: {line!r}") from error


def about(seconds: float) -> str:
    """Return a time in words, such as "40 s" and "2 min 10 s", no finer than an estimate is."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds / 5) * 5, 60)
    return " ".join([f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest))


@contextlib.contextmanager
def reporter(style: str, total: int, done: int = 0) -> Iterator[Report]:
    """Give the function that shows the events of a job of `total` models, `done` of which are.

    style "json": one JSON object a line on the real standard output, while everything that
    anyone else prints there goes to standard error. "plain": a line of text for each event on
    standard error. "auto": a live line on standard error if that is a terminal, else "plain".
    """
    if style == "json":
        with own_standard_output() as stream:
            yield lambda event: print(encode(event), file=stream, flush=True)
    elif style == "auto" and sys.stderr.isatty():
        with _live_line(total, done) as report:
            yield report
    else:
        yield lambda event: print(event, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _live_line(total: int, done: int) -> Iterator[Report]:
    from rich.console import Console  # a tenth of a second that most commands can do without
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        MofNCompleteColumn(),
        BarColumn(bar_width=15),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=total, completed=done)

        def report(event: Event) -> None:
            if event.final:
                progress.console.print(str(event), markup=False)
                progress.advance(task)
            progress.update(task, description=f"{event.model}: {event.step}")

        yield report
