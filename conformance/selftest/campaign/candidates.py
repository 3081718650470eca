"""OpenCV gone wrong, at each stage and on each route: one model's failure, named as what it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product
from random import Random
from unittest import mock

import pytest

from conformance.candidate import STAGES
from conformance.results.cases import read_results

from .attempt import SUITE, Attempt, Kind, Place, check_ended, expect
from .samples import sample

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
    "scribble": (),
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
    words = [str(home / word) if word.endswith(".onnx") else word for word in route.words]
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
    """Whether a route has the stage: ONNX files take no batches, the new engine reads no logits."""
    if stage == "batch":
        return "onnx" not in route.name
    return stage != "logits" or ("new" not in route.name and "onnx" not in route.name)


KIND = Kind("candidates", full=44, short=(0, 1, 2), draw=draw)
