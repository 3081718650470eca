"""OpenCV gone wrong: one model's failure, named as what it is.

Two thirds of the attempts are at judging, at each of its stages and on each route; the others at
commands and at generated models, with a cv2 that goes wrong where it reads or answers.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Callable
from unittest import mock

import numpy as np
import pytest

from conformance.candidate import STAGES
from conformance.generated.outcomes import SINGLE
from conformance.pack.sealed import file_digest
from conformance.results.cases import read_results

from .attempt import SUITE, Attempt, Kind, Place, check_ended, expect
from .samples import COUNT, WHEEL, sample

LIMIT = 240.0
HUNG = 12  # seconds that a model may take


@dataclass(frozen=True)
class Route:
    """How two models are judged: the arguments, and the name of the one that goes wrong."""

    name: str
    words: tuple[str, ...]
    victim: str


# What a run says of each fault, one of them; nothing: it is none of the answer.
SAID = {
    "segv": ("SIGSEGV",),
    "abort": ("SIGABRT",),
    "kill": ("SIGKILL",),
    "hang": ("time limit",),
    "memory": ("MemoryError", "bad_alloc", "Insufficient memory", "SIGKILL", "SIGABRT"),
    "nan": ("nan", "NaN", "finite"),
    "shape": ("shape",),
    "bits": ("bit", "differ", "repeat", "again"),
    "print": (),
    "scribble": ("changed the array that it was given",),
}
ROUTES = tuple(
    Route(f"{importer}, {engine}", (*words, "--engine", engine), victim)
    for engine in ("classic", "new")
    for importer, victim, words in (
        (
            "tensorflow",
            "mobilenet",
            ("--importer", "tensorflow", "-k", "mobilenet or mobilenetv2"),
        ),
        ("onnx", "victim.onnx", ("--model", "victim.onnx", "--model", "other.onnx")),
        ("tflite", "victim.tflite", ("--model", "victim.tflite", "--model", "other.tflite")),
    )
)
ENDING, ANSWERING = ("segv", "abort", "kill", "hang", "memory"), ("nan", "shape", "bits")
# A fault of answers strikes where there are any: those of a batch and of layers are judged, too.
FAULTS = (
    *product(ENDING, STAGES),
    *product(ANSWERING, ("forward", "batch")),
    ("print", "start"),
    ("print", "forward"),
    ("scribble", "forward"),
)


def draw(random: Random, number: int) -> Attempt:
    """Return an attempt: each fault has its turn in each round, the route is drawn."""
    if number % 3 == 2:
        return _draw_command(random, number // 3)
    number -= number // 3
    route = random.choice(ROUTES)
    order = list(FAULTS)
    # Those of a short campaign are none that hang, which takes its time.
    Random(f"round {number // len(FAULTS) + 4}").shuffle(order)
    how, stage = order[number % len(FAULTS)]
    return Attempt(
        route.name, f"{how} at {stage}", lambda place: _attempt(place, route, how, stage)
    )


def _attempt(place: Place, route: Route, how: str, stage: str) -> str:
    home = sample(place, "routes")
    place.variables |= {"SABOTAGE": f"{how} {stage}", "SABOTAGED_MODEL": route.victim}
    words = [
        str(home / word) if word.startswith(("victim", "other")) else word for word in route.words
    ]
    results = place.folder / "results"
    more = ["--packs", str(home / "packs"), "--results", str(results), "-q"]
    if how == "hang":
        more += ["--candidate-timeout", str(HUNG)]

    def judge() -> int:
        sabotaged = "conformance.selftest.sabotaged_child"
        with mock.patch("conformance.opencv.run.CHILD", sabotaged):
            return int(pytest.main([*SUITE, *words, *more, "-m", "not generated"]))

    done = place.forked(judge, LIMIT)
    check_ended(done, 0, 1)
    (file,) = results.glob("*.jsonl")
    size = os.path.getsize(file)
    expect(size < 1 << 20, f"a results file of {size} bytes")
    cases = read_results(file).cases
    bad = [case for case in cases if case["outcome"] in ("failed", "errored")]
    others = {case["model"] for case in bad} - {route.victim}
    expect(not others, f"{', '.join(sorted(others))} fails, too", done)
    passed = {case["model"] for case in cases if case["outcome"] == "passed"}
    expect(passed - {route.victim, "-"}, "the other model is not judged", done)
    if not SAID[how]:
        return "judged as usual" if not bad else "failed by name"
    if not bad and not _reached(route, stage):
        return "not reached"
    expect(bad, "nothing fails", done)
    said = "\n".join(case["reason"] for case in bad)
    expect(any(word in said for word in SAID[how]), "not named as what it is", done)
    return "failed by name"


def _reached(route: Route, stage: str) -> bool:
    """Whether a route has the stage.

    ONNX and TFLite files take no batches, and their logits are read with the layers, as the new
    engine's are.
    """
    if stage == "batch":
        return route.name.startswith("tensorflow")
    return stage != "logits" or route.name == "tensorflow, classic"


@dataclass(frozen=True)
class Command:
    """What runs OpenCV beside judging; the words, with its time limit if there is one.

    answers: the faults of answers that it is to tell, as it looks at them.
    """

    name: str
    words: Callable[[Place, Path], list[str]]
    answers: tuple[str, ...]
    limited: bool


def _evaluate(place: Place, home: Path) -> list[str]:
    words = ["--imagenet-dir", "val", "--imagenet-labels", "val.txt", "--jobs", "1"]
    words += ["--imagenet-cache", str(place.shop / "answers"), "--batch-size", "10"]
    words += ["--results", str(place.folder / "results"), "--timeout", str(HUNG)]
    return ["evaluate", "mobilenet", "mobilenetv2", "--engine", "classic", *words]


def _predict(place: Place, home: Path) -> list[str]:
    words = ["--image", "photo.jpg", "--opencv-only", "--timeout", str(HUNG)]
    return ["predict", "mobilenet", "--engine", "classic", *words]


def _bench(place: Place, home: Path) -> list[str]:
    (wheel,) = (home / "wheels").iterdir()
    words = ["--opencv", WHEEL, "--opencv", str(wheel), "--rounds", "7", "--seconds", "0.02"]
    return ["bench", "mobilenet", *words, "--threads", "1", "--engine", "classic"]


def _export(place: Place, home: Path) -> list[str]:
    words = ["--importer", "tensorflow", "--engine", "classic"]
    return ["export", "mobilenet", *words, "-o", str(place.folder / "exported")]


COMMANDS = (
    # Accuracy, times and pictures are none of a question about last bits.
    Command("evaluate", _evaluate, ("nan", "shape", "scribble"), True),
    Command("predict", _predict, ("nan", "shape", "scribble"), True),
    Command("bench", _bench, ("nan", "shape", "scribble"), False),
    Command("export", _export, ("nan", "shape", "bits", "scribble"), False),
    Command("generated", lambda *_: [], ("nan", "shape", "bits", "scribble"), True),
)


def _draw_command(random: Random, number: int) -> Attempt:
    command = COMMANDS[number % len(COMMANDS)]
    ending = [how for how in ENDING if how != "hang" or command.limited]
    faults = [*product((*ending, "print"), ("read", "forward"))]
    faults += [(how, "forward") for how in command.answers]
    how, stage = random.choice(faults)
    what = f"{how} at {stage}"
    if command.name == "generated":
        turn = random.random()
        return Attempt(
            command.name, what, lambda place: _attempt_generated(place, how, stage, turn)
        )
    return Attempt(command.name, what, lambda place: _attempt_command(place, command, how, stage))


def _attempt_command(place: Place, command: Command, how: str, stage: str) -> str:
    home = sample(place, "commands")
    (graph,) = home.glob("packs/mobilenet/*/frozen_graph.pb")
    words = command.words(place, home)
    shutil.copytree(home / "packs", place.folder / "packs")
    changes = _broken(place, home, how, stage, file_digest(graph))
    done = place.conformance(*words, changes=changes, cwd=home)
    check_ended(done, 0, 1, 2)
    if command.name == "evaluate":
        expect(re.search(r"mobilenetv2-\S+: 0 bad", done.text), "the other is not judged", done)
    if how == "print":
        expect(done.status in (0, 1), "it does not go on", done)
        return "judged as usual"
    if command.name != "export":  # which finds another route, or not
        expect(done.status != 0, "it passes", done)
    expect(any(word in done.text for word in SAID[how]), "not named as what it is", done)
    return "failed by name"


# What a generated model that goes wrong counts as; one that is refused says why.
SYMPTOMS = {
    **dict.fromkeys(("segv", "abort", "kill"), ("crash",)),
    "hang": ("hang",),
    "memory": ("refused", "crash"),
    "nan": ("wrong",),
    "shape": ("shape",),
    "bits": ("unstable", "wrong"),
    "scribble": ("refused",),
    "print": ("right",),
}


def _attempt_generated(place: Place, how: str, stage: str, turn: float) -> str:
    """Break one of the models that are right as a rule; turn: which, as a share of them."""
    home = sample(place, "generated")
    usual = _outcomes(home / "results")
    right = sorted(key for key, outcome in usual.items() if outcome["symptom"] == "right")
    victim = right[int(turn * len(right))]
    (files,) = home.glob("packs/generated/*/files.npz")
    with np.load(files, allow_pickle=False) as found:
        digest = hashlib.sha256(found[f"{victim}/tensorflow"].tobytes()).hexdigest()
    changes = _broken(place, sample(place, "commands"), how, stage, digest)
    results = place.folder / "results"
    words = [f"--generated={COUNT}", f"--packs={home / 'packs'}", f"--results={results}"]
    words += ["--importer=tensorflow", "--engine=classic", "-q", "-m", "generated"]
    done = place.pytest(*words, changes=changes)
    check_ended(done, 0, 1)
    judged = _outcomes(results)
    others = [key for key in usual if judged[key]["symptom"] != usual[key]["symptom"]]
    expect(not set(others) - {victim}, f"{', '.join(others)} change, too", done)
    symptom = judged[victim]["symptom"]
    expect(symptom in SYMPTOMS[how], f"it counts as {symptom}", done)
    if symptom == "refused":
        detail = judged[victim]["detail"]
        expect(any(word in detail for word in SAID[how]), f"the reason is {detail}", done)
    return "judged as usual" if symptom == "right" else "failed by name"


def _outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what came of each generated model, run image by image."""
    (file,) = folder.glob("*.jsonl")
    lines = read_results(file).generated
    return {line["key"]: line for line in lines if line["run"] == SINGLE}


def _broken(place: Place, home: Path, how: str, stage: str, digest: str) -> dict[str, str]:
    """Return the variables of a process whose cv2 goes wrong with the file of that digest."""
    paths = [str(home / "site"), place.environment()["PYTHONPATH"]]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "BROKEN": f"{how} {stage} {digest}",
        "CONFORMANCE_PACKS": str(place.folder / "packs"),
        "XDG_CACHE_HOME": str(place.shop / "user"),
    }


KIND = Kind("candidates", full=66, short=(0, 1, 2), draw=draw)
