"""Damaged files: each kind that the suite reads, damaged in each way, read by a command."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Callable

from conformance.cli.main import main

from .attempt import Attempt, Done, Kind, Place, Skipped, check_ended, expect
from .samples import sample


@dataclass(frozen=True)
class Target:
    """A kind of file and the commands that read it."""

    name: str
    home: str  # the samples that it is among
    file: str  # a pattern in there
    commands: tuple[str, ...]  # {home} and {file} are filled in
    sealed: bool = False  # whether each change is to be noticed, not only what makes it unreadable
    text: bool = False  # whether a part of it may be a whole one


_PACK = (
    "pack verify --packs {home}/packs",
    "localize mobilenet --packs {home}/packs",
    "bench mobilenet --packs {home}/packs --opencv 4.12.0.88",
    "predict mobilenet --opencv-only --packs {home}/packs --image {home}/photo.jpg",
)
_BUILD = ("pack build {file} --packs {home}/new --progress plain",)
_RESULTS = (
    "compare {file} {home}/results/4.7.0-classic.jsonl",
    "compare {home}/results/4.7.0-classic.jsonl {file}",
    "compare --baseline {file} {home}/results/4.7.0-classic.jsonl",
    "history {home}/results",
    "known-failure {file}",
    "report {home}/results -o {home}/page.html",
)
_PREDICT = "predict mobilenet --opencv-only --packs {home}/packs"

_EVALUATE = (
    "evaluate mobilenet --packs {home}/packs --imagenet-dir {home}/val --subset 1 "
    "--imagenet-labels {file} --engine none"
)
_REPORT = "report {home}/results -o {home}/page.html"


def _table(name: str, command: str, file: str = "", home: str = "small") -> Target:
    return Target(name, home, file or f"{name.replace(' ', '_')}.toml", (command,), text=True)


TARGETS = (
    *(
        Target(f"pack: {name}", "small", f"packs/mobilenet/*/{name}", _PACK, sealed=True)
        for name in (
            *("pack.json", "frozen_graph.pb", "inputs.npy", "outputs_f64.npy"),
            *("logits_f32.npy", "layers.npz", "preprocessing.npz"),
        )
    ),
    Target("results", "small", "results/4.6.0-classic.jsonl", _RESULTS, sealed=True),
    Target(
        "results of generated models",
        "small",
        "generated/4.13.0-classic.jsonl",
        ("findings {file}", "report {home}/results {file} -o {home}/page.html"),
        sealed=True,
    ),
    _table("known failures", "history {home}/results --strict --known-failures {file}"),
    _table("known defects", "findings {home}/generated --known-defects {file}"),
    _table("tolerances", "TOLERANCES {file}"),
    _table("labels", _PREDICT + " --image {home}/photo.jpg --labels {file}", "labels.txt"),
    _table("val.txt", _EVALUATE, "val.txt"),
    Target("image", "small", "photo.jpg", (_PREDICT + " --image {file}",)),
    Target("benchmark JSON", "small", "bench.json", (_REPORT + " --bench {file}",)),
    Target("route.json", "small", "out/route.json", ("EXPORT {file}",)),
    _table(
        "conformance.toml",
        "localize plain --models-file {file} --packs {home}/packs",
        "conformance.toml",
        "models",
    ),
    _table(
        "preprocessing",
        "pack build {home}/flowers.onnx --model-preprocess {file} --packs {home}/new",
        "figures.toml",
        "models",
    ),
    Target(".onnx", "models", "flowers.onnx", _BUILD),
    Target(".tflite", "models", "plain.tflite", _BUILD),
)
# TensorFlow reads them, which takes seconds to import.
SLOW = tuple(
    Target(suffix, "models", f"plain{suffix}", _BUILD) for suffix in (".keras", ".h5", ".pb")
)


def _flip(file: Path, random: Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(random.choice((1, 1, 4))):
        data[random.randrange(len(data))] ^= random.randrange(1, 256)
    file.write_bytes(data)


def _cut(file: Path, random: Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: random.randrange(1, len(data))])


def _empty(file: Path, random: Random) -> None:
    file.write_bytes(b"")


def _grow(file: Path, random: Random) -> None:
    data, more = file.read_bytes(), random.randbytes(random.randrange(1, 200))
    at = random.choice((len(data), random.randrange(len(data))))
    file.write_bytes(data[:at] + more + data[at:])


def _other_kind(file: Path, random: Random) -> None:
    kinds = (
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"PK\x03\x04" + bytes(64),
        b"\x93NUMPY\x01\x00",
        b"[]",
        b'"text"',
        b"null",
        b"{}",
        b"<html>",
        b"\xff\xfe\x00\x01" * 9,
        b"1\n2\n",
        b"[" * 100_000,
        b"\x89HDF\r\n\x1a\n" + bytes(64),
    )
    file.write_bytes(random.choice(kinds))


def _folder(file: Path, random: Random) -> None:
    file.unlink()
    file.mkdir()


def _unreadable(file: Path, random: Random) -> None:
    """What is found and opened, and gives an error when it is read: so it is for root, too."""
    file.unlink()
    if not Path("/proc/self/mem").exists():
        raise Skipped("no file here that nobody can read")
    file.symlink_to(random.choice(("/proc/self/mem", file.name)))


WAYS: dict[str, Callable[[Path, Random], None]] = {
    "flipped": _flip,
    "cut": _cut,
    "emptied": _empty,
    "grown": _grow,
    "another kind": _other_kind,
    "a folder": _folder,
    "unreadable": _unreadable,
}
# Ways after which an unsealed file may still be one of its kind.
GRADUAL = ("flipped", "grown")


def draw(random: Random, number: int) -> Attempt:
    """Return an attempt: every kind of file has its turn, and the way is drawn."""
    few = [SLOW[number // 16 % len(SLOW)]] if number % 16 == 15 else TARGETS
    target = few[(number - number // 16) % len(few)]
    way = random.choice(list(WAYS))
    words = random.choice(target.commands)
    what = f"{way}, by {words.split()[0]}"
    return Attempt(target.name, what, lambda place: _attempt(place, target, way, words, random))


def _attempt(place: Place, target: Target, way: str, words: str, random: Random) -> str:
    home = place.folder / "home"
    shutil.copytree(sample(place, target.home), home, symlinks=True)
    (file,) = home.glob(target.file)
    before = file.read_bytes()
    WAYS[way](file, random)
    if file.is_file() and way in ("flipped", "grown") and file.read_bytes() == before:
        raise Skipped("nothing was changed")
    given = [word.format(home=home, file=file) for word in words.split()]
    done = place.forked(lambda: COMMANDS.get(given[0], main)(given))
    check_ended(done, 0, 1, 2)
    return judged(done, target, way, file)


def judged(done: Done, target: Target, way: str, file: Path) -> str:
    """Return what came of reading a damaged file; raise Failed where it is no clear refusal."""
    refused = done.status == 2 or "damaged  " in done.text
    if not refused:
        expect(not target.sealed, "a verdict on a changed file that is sealed", done)
        told = way == "cut" and (target.text or f"warning: {file}" in done.text)
        expect(way in GRADUAL or told, "a verdict on what is no such file", done)
        return "read as it stands"
    expect(file.name in done.text, f"an error that does not name {file.name}", done)
    errors = [line for line in done.text.splitlines() if line.startswith("error: ")]
    expect(len(errors) == 1 or "damaged  " in done.text, "not one error", done)
    return "refused"


def _tolerances(words: list[str]) -> int:
    """Read a tolerances file, which only a checkout's own may be, as the commands do."""
    from conformance.errors import ConformanceError
    from conformance.verdict.tolerance import load_tolerances

    try:
        load_tolerances(Path(words[1]))
    except ConformanceError as error:
        os.write(2, f"error: {error}\n".encode())
        return 2
    return 0


def _export(words: list[str]) -> int:
    """Check a folder of an earlier export, as the command does before it tries a route."""
    from conformance.errors import ConformanceError
    from conformance.export.folder import check_folder

    try:
        check_folder(Path(words[1]).parent)
    except ConformanceError as error:
        os.write(2, f"error: {error}\n".encode())
        return 2
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"TOLERANCES": _tolerances, "EXPORT": _export}
KIND = Kind("damage", full=200, short=tuple(range(10)), draw=draw)
