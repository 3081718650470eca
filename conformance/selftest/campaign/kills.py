"""Killed commands: at a random moment, by SIGKILL or SIGINT, and then run again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Callable

from conformance.cli import INTERRUPTED
from conformance.errors import ConformanceError
from conformance.pack.sealed import file_digest, json_digest
from conformance.results.cases import read_results
from conformance.results.evaluations import read_results as read_evaluation

from .attempt import SUITE, TRACE, Attempt, Done, Kind, Place, expect, once, read_text, waited
from .samples import WHEEL, sample

Words = Callable[[Place, Path], list[str]]


@dataclass(frozen=True)
class Job:
    """A command that writes into a folder of its own, and what it has written there."""

    name: str
    turns: int  # how often it comes in a round
    words: Words
    result: Callable[[Path], str]  # what two runs have in common; raises where there is none
    resumed: tuple[str, ...] = ()  # further words of the run after


def _conformance(*words: object) -> list[str]:
    return [sys.executable, "-m", "conformance", *map(str, words)]


def _judge(place: Place, out: Path) -> list[str]:
    keyword = "mobilenet and not mobilenetv2"
    words = ["--packs", sample(place, "small") / "packs", "-k", keyword, "--engine", "classic"]
    words += ["--results", out / "results", "-q"]
    return [sys.executable, "-m", "pytest", *SUITE, *map(str, words)]


def _evaluate(place: Place, out: Path) -> list[str]:
    home = sample(place, "small")
    cache = next((f for f in (place.folder / "cache",) if f.exists()), out.parent / "cache")
    words = ["--packs", home / "packs", "--imagenet-dir", home / "val", "--engine", "classic"]
    words += ["--imagenet-labels", home / "val.txt", "--imagenet-cache", cache]
    return _conformance("evaluate", "mobilenet", *words, "--jobs", 1, "--batch-size", 10,
                        "--results", out)  # fmt: skip


def _export(place: Place, out: Path) -> list[str]:
    words = ("--importer", "tensorflow", "--engine", "classic", "-o", out / "exported")
    return _conformance("export", "mobilenet", "--packs", sample(place, "small") / "packs", *words)


def _bench(place: Place, out: Path) -> list[str]:
    words = ["--opencv", WHEEL, "--rounds", 7, "--seconds", 0.02, "--threads", 1]
    words += ["--fail-above", 99, "--json", out / "bench.json"]
    return _conformance("bench", "mobilenet", "--packs", sample(place, "small") / "packs", *words)


def _build(*what: Any) -> Words:
    def words(place: Place, out: Path) -> list[str]:
        home = sample(place, "models")
        named = (home / w if str(w).endswith((".keras", ".onnx")) else w for w in what)
        return _conformance("pack", "build", *named, "--packs", out / "packs", "--progress=plain")

    return words


def _reduce(place: Place, out: Path) -> list[str]:
    home = sample(place, "generated")
    only = (home / "only").read_text()
    words = ("--reduce", out / "reduced", "--only", only, "--packs", home / "packs")
    return _conformance("findings", home / "results", *words)


def _packs(out: Path) -> str:
    """Return the digests of all packs' files, each checked."""
    files = {}
    for file in sorted((out / "packs").glob("*/*/**/*.json")):
        folder = file.parent
        manifest = json.loads(file.read_text())
        files[folder.relative_to(out).as_posix()] = {
            name: "there" if _is_numbered(name) else file_digest(folder / name)
            for name in manifest["files"]
        }
    if not files:
        raise FileNotFoundError("no pack")
    return json.dumps(files, sort_keys=True)


def _is_numbered(name: str) -> bool:
    """Whether tf2onnx has named the nodes in it, which it numbers anew each time."""
    return name == "files.npz" or name.endswith(".onnx")


def _judged(out: Path) -> str:
    (file,) = (out / "results").glob("*.jsonl")
    found = read_results(file)
    cases = [[case["id"], case["outcome"], case.get("observed")] for case in found.cases]
    return json_digest([cases, [run["outputs_sha256"] for run in found.runs]])


def _evaluated(out: Path) -> str:
    from ..imagenet_sample import numbers

    (file,) = out.glob("imagenet/*.jsonl")
    return numbers(read_evaluation(file))


def _exported(out: Path) -> str:
    route = json.loads((out / "exported" / "route.json").read_text())
    file = out / "exported" / route["file"]["name"]
    return json_digest([route["file"], file_digest(file), read_text(file.with_name("run.py"))])


def _benched(out: Path) -> str:
    document = json.loads((out / "bench.json").read_text())
    rounds = [[one["model"], len(one["rounds"])] for one in document["comparisons"]]
    return json_digest([rounds, document["complete"]])


def _reduced(out: Path) -> str:
    (folder,) = (path for path in (out / "reduced").iterdir() if path.is_dir())
    files = {file.name: file_digest(file) for file in folder.iterdir() if file.suffix != ".md"}
    json.loads((out / "reduced" / "findings.json").read_text())
    return json_digest([folder.name, files])


# A pack build has as many turns as each of the other commands.
JOBS = (
    Job("judge --results", 10, _judge, _judged),
    Job("evaluate", 10, _evaluate, _evaluated, ("--resume",)),
    Job("export", 10, _export, _exported),
    Job("bench", 10, _bench, _benched),
    Job("findings --reduce", 10, _reduce, _reduced),
    Job("pack build, own", 3, _build("plain.keras", "--importer", "tensorflow,onnx"), _packs),
    Job(
        "pack build, generated",
        2,
        _build("--generated", 6, "--importer", "tensorflow,onnx"),
        _packs,
    ),
    Job("pack build, onnx", 4, _build("flowers.onnx"), _packs),
    Job("pack build, mobilenet", 1, _build("mobilenet"), _packs),
)
# What an interrupted command may end with: 130, pytest's 2, or as usual if it was done by then.
INTERRUPTED_STATUSES = (INTERRUPTED, 2)


def _spread(jobs: Iterable[Job]) -> list[Job]:
    """Return a round: each job as often as it has turns, spread evenly."""
    places = [
        (turn / (job.turns + 1), number, job)
        for number, job in enumerate(jobs)
        for turn in range(1, job.turns + 1)
    ]
    return [job for _, _, job in sorted(places, key=lambda place: place[:2])]


ROUND = _spread(JOBS)


def draw(random: Random, number: int) -> Attempt:
    """Return an attempt: the jobs have their turns, the signals take turns, the moment is drawn."""
    job = ROUND[number // 2 % len(ROUND)]
    name = ("SIGKILL", "SIGINT")[number % 2]
    share = random.random()
    what = f"{name} after {share:.0%} of its time"
    return Attempt(job.name, what, lambda place: _attempt(place, job, name, share))


def undisturbed(place: Place, job: Job) -> dict[str, Any]:
    """Return what the job comes to when nobody kills it, found out once a campaign."""

    def find_out(folder: Path) -> None:
        out = place.folder / "undisturbed" / "out"
        out.mkdir(parents=True)
        prepare(place, out, out.parent / "cache")
        done = place.run(job.words(place, out))
        # What it makes once, such as an environment, is none of its usual time.
        if done.seconds > 3:
            shutil.rmtree(out)
            out.mkdir()
            done = place.run(job.words(place, out))
        expect(done.status == 0, f"{job.name} does not work", done)
        found = {"seconds": done.seconds, "result": job.result(out), "names": _names(out)}
        (folder / "usual.json").write_text(json.dumps(found))
        if job.resumed:
            answers = out.parent / "cache"
            once(place.shop / "cache", lambda cache: shutil.copytree(answers, cache / "answers"))
        shutil.rmtree(out.parent)

    folder = once(place.shop / json_digest(job.name)[:12], find_out)
    return dict(json.loads((folder / "usual.json").read_text()))


def prepare(place: Place, out: Path, cache: Path) -> None:
    """Have a job find what is made once: environments, and TensorFlow's answers to images."""
    place.variables["XDG_CACHE_HOME"] = str(place.shop / "user")
    if (place.shop / "cache").exists():
        shutil.copytree(place.shop / "cache" / "answers", cache)


def _names(out: Path) -> list[str]:
    """Return all that lies in a folder, but for locks, which stay."""
    paths = (path.relative_to(out).as_posix() for path in out.rglob("*"))
    return sorted(path for path in paths if not path.endswith(".lock"))


def _attempt(place: Place, job: Job, name: str, share: float) -> str:
    usual = undisturbed(place, job)
    out = place.folder / "out"
    out.mkdir()
    prepare(place, out, out.parent / "cache")
    process = place.start(job.words(place, out), place.folder / "killed")
    begin = time.monotonic()
    seconds = share * float(usual["seconds"])
    while time.monotonic() - begin < seconds and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, getattr(signal, name))
    killed = Done(waited(process, 60), read_text(place.folder / "killed"))
    expect(killed.status is not None, f"it hangs after {name}", killed)
    # Python itself ends by the signal where that comes before its first line or after its last.
    ended = (0, *INTERRUPTED_STATUSES, -signal.SIGINT) if name == "SIGINT" else (0, -signal.SIGKILL)
    if _is_outside(job, killed):
        ended = (*ended, 1)  # of Python, which could not import what it begins with
    else:
        expect(not TRACE.search(killed.text), f"a traceback after {name}", killed)
    expect(killed.status in ended, f"a status other than {ended}", killed)
    alive = place.alone()
    expect(not alive, f"orphans: {alive}")
    early = whole(job, out, str(usual["result"]))
    for folder in (place.folder / "tmp").iterdir():
        os.utime(folder, (1, 1))  # as if it had lain there for a while
    more = job.resumed if killed.status != 0 else ()
    again = place.run([*job.words(place, out), *more])
    expect(again.status == 0 and not TRACE.search(again.text), "the next run fails", again)
    expect(job.result(out) == usual["result"], "the next run has other results", again)
    extra = [name for name in _names(out) if name not in usual["names"]]
    expect(not extra, f"left in the folder: {', '.join(extra)}")
    return "had ended" if killed.status == 0 else "whole" if early else "absent"


def _is_outside(job: Job, killed: Done) -> bool:
    """Whether Python or pytest was interrupted outside of all that is ours.

    That is before the command line begins, or before and after pytest's session: pytest itself
    shows a KeyboardInterrupt then, and may go on.
    """
    interrupted = re.search("^KeyboardInterrupt$", killed.text, re.MULTILINE) is not None
    return interrupted and (job.name.startswith("judge") or "/conformance/cli/" not in killed.text)


def whole(job: Job, out: Path, usual: str) -> bool:
    """Return whether there is a result; raise Failed for one that is not as it should be."""
    try:
        found = job.result(out)
    except (FileNotFoundError, ConformanceError):  # absent, or refused by whoever reads it
        return False
    except ValueError as error:
        if "not enough values" in str(error):
            return False
        raise
    if job.name == "bench":
        return found == usual  # its file says whether it is complete
    if job.name.startswith("pack "):
        # Of a pack and its converted files each is whole or absent.
        expect(json.loads(found).items() <= json.loads(usual).items(), "a pack that is not whole")
        return found == usual
    expect(found == usual, "half a result is taken for a whole one")
    return True


# Six commands, two signals, fifty moments.
KIND = Kind("kills", full=600, short=(0, 1, 4, 5), draw=draw)
