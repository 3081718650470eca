"""Progress: a program can read it, a person can read it, and noise does not get into it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from conformance.processes.progress import Event, about, decode, encode, reporter

EVENTS = [
    Event("mobilenet", "freezing [1/2]", 0.5),
    Event("mobilenet", "built [as asked]", 1.25, "built"),
    Event("xception", "line one\nline two", 2.0, "failed"),
]
_NOISY = """
import os
from conformance.processes.progress import reporter
from conformance.selftest.test_progress import EVENTS

with reporter({style!r}, 2) as report:
    for event in EVENTS:
        print("a download bar 42%")
        os.write(1, b"native noise")
        report(event)
print("afterwards")
"""


@pytest.mark.parametrize("event", EVENTS)
def test_event_survives_its_line(event: Event) -> None:
    """Encoding gives one line, and decoding it gives the event back."""
    assert "\n" not in encode(event)
    assert decode(encode(event)) == event


@pytest.mark.parametrize("line", ["", "noise", "{}", '{"model": "x", "other": 1}', "[]", "3"])
def test_anything_else_is_no_event(line: str) -> None:
    """A line that is not an event's is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        decode(line)


def test_only_events_end_an_own_model() -> None:
    """Built, found and failed are final; working and waiting are not."""
    states = ("working", "waiting", "built", "found", "failed")
    assert [Event("m", "s", 0, state).final for state in states] == [False] * 2 + [True] * 3


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (7.4, "7 s"), (58, "1 min"), (93, "1 min 35 s")]
)
def test_time_is_told_no_finer_than_it_is_known(seconds: float, words: str) -> None:
    """An estimate is in whole seconds, from ten on in steps of five."""
    assert about(seconds) == words


def test_json_is_alone_on_standard_output() -> None:
    """What Python and native code print meanwhile goes to standard error, not among the lines."""
    command = [sys.executable, "-c", _NOISY.format(style="json")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, last = run.stdout.splitlines()
    assert [decode(line) for line in lines] == EVENTS
    assert last == "afterwards"
    assert run.stderr.count("native noise") == run.stderr.count("download bar") == len(EVENTS)


def test_without_a_terminal_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard error is no terminal, each event is a line without control characters."""
    with reporter("auto", 2) as report:
        for event in EVENTS:
            report(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == "mobilenet: freezing [1/2] (0.5 s)"
    assert "\x1b" not in captured.err


def test_on_a_terminal_the_line_is_live() -> None:
    """On a terminal finished models stay as lines, and brackets are not taken for markup."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", _NOISY.format(style="auto")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with open(ours, "rb", buffering=0) as terminal:
        run = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment)
        os.close(theirs)
        shown = b"".join(_chunks(terminal)).decode()
        assert run.wait() == 0
    assert "mobilenet: built [as asked] (1.2 s)" in shown
    assert "xception: line one" in shown


def _chunks(terminal: io.RawIOBase) -> list[bytes]:
    chunks = []
    try:
        while chunk := terminal.read(4096):
            chunks.append(chunk)
    except OSError:
        pass  # Linux ends a pseudo-terminal with EIO
    return chunks
