"""What an attempt is, and the place that it has to itself."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Callable, Optional

from filelock import FileLock

from conformance.processes.child import child_environment

# Each process of an attempt has it among its environment variables, so that orphans are found.
MARKER = "CONFORMANCE_CAMPAIGN"
LIMIT = 240.0  # seconds that a process of an attempt may take before it counts as hung
# How long a process may outlive the attempt that it belongs to.
PATIENCE = 10.0
# Names of our temporary files and folders; others' are not ours to look for.
OURS = re.compile(r"conformance|\.tmp-")
TRACE = re.compile(r"Traceback \(most recent call last\)|INTERNALERROR|Fatal Python error")


class Failed(Exception):
    """The suite did not keep what it promises; the text says what happened instead."""


class Skipped(Exception):
    """The attempt can't be made on this machine; the text says why."""


@dataclass(frozen=True)
class Done:
    """How a process ended; status: its exit code, negative for a signal, None at the time limit."""

    status: Optional[int]
    text: str  # its stdout and stderr
    seconds: float = 0.0

    def last(self, count: int = 12) -> str:
        """Return its status and last lines."""
        return "\n".join([f"status {self.status}:", *self.text.strip().splitlines()[-count:]])


@dataclass
class Place:
    """An attempt's own folder and environment. shop: what is made once for all attempts."""

    folder: Path
    shop: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        mark = f"{os.getpid()}-{self.folder.name}"
        self.variables |= {"TMPDIR": str(temporary), MARKER: mark, "COLUMNS": "200"}

    def environment(self, changes: Mapping[str, str] = {}) -> dict[str, str]:
        """Return the environment of the attempt's processes."""
        return {**child_environment(), **self.variables, **changes}

    def start(
        self,
        words: Sequence[str],
        log: Path,
        changes: Mapping[str, str] = {},
        **more: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own; `log` gets what it prints."""
        with log.open("wb") as file:
            return subprocess.Popen(
                list(words),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=more.pop("cwd", self.folder),
                env=self.environment(changes),
                start_new_session=True,
                **more,
            )

    def run(
        self,
        words: Sequence[str],
        changes: Mapping[str, str] = {},
        limit: float = LIMIT,
        **more: Any,
    ) -> Done:
        """Run a process to its end, or kill it at the time limit."""
        log, begin = self.folder / "log", time.monotonic()
        process = self.start(words, log, changes, **more)
        status = waited(process, limit)
        return Done(status, read_text(log), time.monotonic() - begin)

    def conformance(self, *words: str, **more: Any) -> Done:
        """Run ``python -m conformance``."""
        return self.run([sys.executable, "-m", "conformance", *words], **more)

    def pytest(self, *words: str, **more: Any) -> Done:
        """Run the suite's tests."""
        return self.run([sys.executable, "-m", "pytest", *SUITE, *words], **more)

    def forked(self, call: Callable[[], object], limit: float = LIMIT) -> Done:
        """Call a function in a fork of this process, which has imported already what it needs."""
        log, begin = self.folder / "log", time.monotonic()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._as_child(call, log)
        return Done(_collected(child, limit), read_text(log), time.monotonic() - begin)

    def _as_child(self, call: Callable[[], object], log: Path) -> None:
        status = 70
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(self.variables)
            tempfile.tempdir = None
            os.chdir(self.folder)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (
                io.TextIOWrapper(os.fdopen(n, "wb", 0, closefd=False), "utf-8", write_through=True)
                for n in (1, 2)
            )
            status = int(call() or 0)  # type: ignore[call-overload]
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(status)

    def left_behind(self) -> list[str]:
        """Return the processes and temporary files that the attempt left, after some patience."""
        alive = self.alone()
        found = [f"orphan {pid}: {words}" for pid, words in alive.items()]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found + [f"temporary {name}" for name in self._kept()]

    def _kept(self) -> list[str]:
        """Return the names of our temporary files and folders that are there."""
        names = sorted(path.name for path in (self.folder / "tmp").iterdir())
        return [name for name in names if OURS.search(name)]

    def alone(self) -> dict[int, str]:
        """Wait for the attempt's processes to end, and return those that do not."""
        deadline = time.monotonic() + PATIENCE
        while (alive := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return alive

    def swept(self) -> None:
        """Let a further process of ours remove what killed ones left, as if a minute were over."""
        self.alone()
        code = "from conformance.processes.scratch import Scratch; Scratch().cleanup()"
        deadline = time.monotonic() + PATIENCE
        # A process that ends gives its memory back, which takes a while, and then its locks.
        while (kept := self._kept()) and time.monotonic() < deadline:
            for name in kept:
                os.utime(self.folder / "tmp" / name, (1, 1))
            done = self.run([sys.executable, "-c", code])
            expect(done.status == 0, "nobody can tidy up", done)

    def processes(self) -> dict[int, str]:
        """Return the running processes that bear the attempt's mark, with their command lines."""
        mark = f"{MARKER}={self.variables[MARKER]}".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(entry.name) != os.getpid() and mark in (
                    entry / "environ"
                ).read_bytes().split(b"\0"):
                    words = (
                        (entry / "cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode("utf-8", "replace")
                    )
                    if words:  # none: it ended and waits to be collected
                        found[int(entry.name)] = words[:160]
        return found


SUITE = ("--pyargs", "conformance.suite", "-p", "no:cacheprovider")


def waited(process: subprocess.Popen[bytes], limit: float) -> Optional[int]:
    """Return a process' exit code, None where it had to be killed at the time limit."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def _collected(child: int, limit: float) -> Optional[int]:
    deadline = time.monotonic() + limit
    pause = 0.002
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.05, pause * 1.2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def read_text(path: Path) -> str:
    """Return a file's text, whatever its bytes are."""
    return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""


def expect(condition: object, what: str, done: Optional[Done] = None) -> None:
    """Raise Failed unless the condition holds."""
    if not condition:
        raise Failed(f"{what}{'; ' + done.last() if done else ''}")


def check_ended(done: Done, *statuses: int) -> None:
    """Raise Failed for a hang, a traceback, and a status that is none of those."""
    expect(done.status is not None, "it hangs", done)
    expect(not TRACE.search(done.text), "a traceback", done)
    expect(done.status in statuses, f"a status other than {statuses}", done)


@dataclass(frozen=True)
class Attempt:
    """One attempt: of what, what is done to it, and the function that does it.

    run returns how it came out in a word or two; raises Failed or Skipped.
    """

    target: str
    what: str
    run: Callable[[Place], str]


@dataclass(frozen=True)
class Kind:
    """A kind of attack. draw: makes the attempt of that number, all else by the random numbers."""

    name: str
    full: int  # how many attempts a campaign makes
    short: tuple[int, ...]  # the numbers of those that a short one makes
    draw: Callable[[Random, int], Attempt]


@dataclass(frozen=True)
class Row:
    """What came of an attempt: "held", "failed" or "skipped", and the words for it."""

    seed: int
    kind: str
    number: int
    target: str
    what: str
    outcome: str
    words: str
    seconds: float


def drawn(kind: Kind, seed: int, number: int) -> Attempt:
    """Return an attempt; it depends on nothing but these."""
    return kind.draw(Random(f"{seed} {kind.name} {number}"), number)


def made(kind: Kind, seed: int, number: int, root: Path) -> Row:
    """Make an attempt in a folder of its own, and look for what it left."""
    attempt = drawn(kind, seed, number)
    place = Place(root / f"{kind.name}-{number}", root / "shop")
    begin = time.monotonic()
    try:
        outcome, words = "held", attempt.run(place)
        left = place.left_behind()
        expect(not left, f"left behind: {', '.join(left)}")
    except Skipped as why:
        outcome, words = "skipped", str(why)
    except Failed as why:
        outcome, words = "failed", str(why)
        place.left_behind()
    except Exception:
        # A fault of the campaign's own is none of the suite's, but no attempt that held either.
        outcome, words = "failed", traceback.format_exc()
    seconds = round(time.monotonic() - begin, 2)
    if outcome != "failed":
        shutil.rmtree(place.folder, ignore_errors=True)
    return Row(seed, kind.name, number, attempt.target, attempt.what, outcome, words, seconds)


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return the folder, made when it is first asked for; attempts side by side wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder


@contextlib.contextmanager
def root_folder() -> Iterator[Path]:
    """Give a folder for a campaign, which is kept where an attempt failed."""
    root = Path(tempfile.mkdtemp(prefix="campaign-"))
    yield root
    if not any(path.name != "shop" for path in root.iterdir()):
        shutil.rmtree(root, ignore_errors=True)
