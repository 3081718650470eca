"""What a machine lacks: room on a disk or in memory, folders that take writes, a home, a clock."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Callable, Optional

from conformance.errors import ConformanceError
from conformance.results.cases import read_results

from .attempt import (
    TRACE,
    Attempt,
    Done,
    Kind,
    Place,
    Skipped,
    expect,
    read_text,
    waited,
)
from .kills import JOBS, Job, prepare, undisturbed, whole

# Those that take seconds, not minutes.
NAMES = (
    "judge --results",
    "evaluate",
    "export",
    "bench",
    "pack build, onnx",
    "pack build, generated",
)
CHEAP = tuple(job for job in JOBS if job.name in NAMES)
ODD = "a folder of \u00fcml\u00e4uts, 'quotes' and \"more\" \u65e5\u672c " + "x" * 150


@dataclass
class Trouble:
    """What a run meets. out: where it writes; relieve: what makes room for the next run."""

    out: Path
    changes: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()  # words in front of the command
    limits: Optional[Callable[[], None]] = None  # called in the process before it begins
    relieve: Callable[[], object] = bool
    must_work: bool = False


Maker = Callable[[Place, Random], contextlib.AbstractContextManager[Trouble]]


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"no file system may be mounted here: {done.stderr.strip()}")


def _out(place: Place) -> Path:
    """Make the folder that the command writes to."""
    out = place.folder / "run" / "out"
    out.mkdir(parents=True)
    return out


@contextlib.contextmanager
def _file_system(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def _full(place: Place, random: Random) -> Iterator[Trouble]:
    """A disk that is full after so many KiB, for what is written or what is temporary."""
    size = int(2 ** random.uniform(2, 12))
    with _file_system(place.folder / "disk", f"size={size}k") as disk:
        (disk / "out").mkdir()
        changes = {}
        if random.random() < 0.4:
            (disk / "tmp").mkdir()
            changes["TMPDIR"] = str(disk / "tmp")
        yield Trouble(
            disk / "out",
            changes,
            relieve=lambda: _mount("-o", "remount,size=200m", str(disk)),
        )


@contextlib.contextmanager
def _short_of_memory(place: Place, random: Random) -> Iterator[Trouble]:
    """An address space that ends somewhere in the work."""
    most = int(random.uniform(0.9, 3.0) * (1 << 30))

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    yield Trouble(_out(place), limits=limits)


@contextlib.contextmanager
def _read_only(place: Place, random: Random) -> Iterator[Trouble]:
    """A folder for results that takes no writes."""
    with _file_system(place.folder / "disk", "size=100m") as disk:
        (disk / "out").mkdir()
        _mount("-o", "remount,ro", str(disk))
        yield Trouble(disk / "out", relieve=lambda: _mount("-o", "remount,rw", str(disk)))


@contextlib.contextmanager
def _no_shm(place: Place, random: Random) -> Iterator[Trouble]:
    """No /dev/shm, which semaphores lie in."""
    out = _out(place)
    empty = place.folder / "empty"
    empty.mkdir()
    hide = f"mount --bind {empty} /dev/shm && mount -o remount,bind,ro /dev/shm"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", hide], capture_output=True, check=False)
    if tried.returncode:
        raise Skipped("no mount namespace may be made here")
    yield Trouble(out, before=("unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh"))


@contextlib.contextmanager
def _no_home(place: Place, random: Random) -> Iterator[Trouble]:
    """A home that is not there, and can't be made."""
    yield Trouble(_out(place), {"HOME": "/proc/none/home", "XDG_CACHE_HOME": "/proc/none/cache"})


@contextlib.contextmanager
def _clock(place: Place, random: Random) -> Iterator[Trouble]:
    """A clock that jumps by up to a day, either way, at each hundredth look."""
    out = _out(place)
    site = place.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import itertools, random, time\n"
        f"dice, looks, real = random.Random({random.random()}), itertools.count(1), time.time\n"
        "shift = [0.0]\n"
        "def jumping():\n"
        "    if next(looks) % 100 == 0: shift[0] = dice.uniform(-86400, 86400)\n"
        "    return real() + shift[0]\n"
        "time.time = jumping\n"
    )
    paths = os.pathsep.join([str(site), place.environment()["PYTHONPATH"]])
    yield Trouble(out, {"PYTHONPATH": paths}, must_work=True)


@contextlib.contextmanager
def _odd_path(place: Place, random: Random) -> Iterator[Trouble]:
    """Spaces, quotes, other letters and length in the path of all that is written."""
    out = place.folder / ODD / "out"
    out.mkdir(parents=True)
    (place.folder / ODD / "tmp").mkdir()
    yield Trouble(out, {"TMPDIR": str(place.folder / ODD / "tmp")}, must_work=True)


TROUBLES: dict[str, Maker] = {
    "disk full": _full,
    "no memory": _short_of_memory,
    "read-only folder": _read_only,
    "no /dev/shm": _no_shm,
    "no home": _no_home,
    "clock that jumps": _clock,
    "odd path": _odd_path,
}
# The disk has every second turn: it may be full at any moment.
TURNS = tuple(name for other in list(TROUBLES)[1:] for name in ("disk full", other))


def draw(random: Random, number: int) -> Attempt:
    """Return an attempt: the troubles take turns, and so do the commands."""
    name = TURNS[number % len(TURNS)]
    job = CHEAP[(number // 2 + number // len(TURNS)) % len(CHEAP)]
    return Attempt(name, job.name, lambda place: _attempt(place, job, name, random))


def _attempt(place: Place, job: Job, name: str, random: Random) -> str:
    usual = undisturbed(place, job)
    with TROUBLES[name](place, random) as trouble:
        prepare(place, trouble.out, place.folder / "cache")
        words = [*trouble.before, *job.words(place, trouble.out)]
        done = _run(place, words, trouble)
        _check(done, job, trouble)
        if job.name.startswith("judge") and done.status == 1:
            _errored_only(trouble.out)
            there = False
        else:
            there = whole(job, trouble.out, str(usual["result"]))
        if done.status == 0:
            expect(there, "it ends well, but with other results", done)
            return "works"
        trouble.relieve()
        more = job.resumed if list(trouble.out.glob("imagenet/*.shards")) else ()
        again = place.run([*job.words(place, trouble.out), *more])
        expect(again.status == 0 and not TRACE.search(again.text), "the next run fails", again)
        expect(job.result(trouble.out) == usual["result"], "other results afterwards", again)
    return "one error"


def _errored_only(out: Path) -> None:
    """Raise Failed where a run that could not judge has a verdict on the model."""
    for file in out.glob("results/*.jsonl"):
        with contextlib.suppress(ConformanceError):  # it has no footer: no evidence of anything
            failed = [c["id"] for c in read_results(file).cases if c["outcome"] == "failed"]
            expect(not failed, f"OpenCV is blamed: {', '.join(failed)}")


def _run(place: Place, words: list[str], trouble: Trouble) -> Done:
    log = place.folder / "troubled"
    more: dict[str, Any] = {"preexec_fn": trouble.limits} if trouble.limits else {}
    process = place.start(words, log, trouble.changes, **more)
    return Done(waited(process, 240), read_text(log))


def _check(done: Done, job: Job, trouble: Trouble) -> None:
    expect(done.status is not None, "it hangs", done)
    expect(not TRACE.search(done.text), "a traceback", done)
    if trouble.must_work:
        expect(done.status == 0, "it should have worked", done)
    judging = job.name.startswith("judge")
    # Of pytest 1 is an error of a test, which says why; of a command it would be a verdict.
    expect(done.status in ((0, 1, 4) if judging else (0, 2)), "no clear end", done)
    if not judging and done.status == 2:
        errors = [line for line in done.text.splitlines() if line.startswith("error: ")]
        expect(len(errors) == 1, f"{len(errors)} messages", done)


KIND = Kind("resources", full=40, short=(0, 1, 4, 5), draw=draw)
