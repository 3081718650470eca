"""Generated models run in OpenCV: many in a child process, of which a crash costs one model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.processes.child import Ending, run_module

from .outcomes import Judge, Outcome

Array = np.ndarray[Any, Any]

# What one model may take before it counts as hung; the slowest takes a tenth of a second.
SECONDS = 20.0
HUNG = "SIGALRM"


@dataclass(frozen=True)
class Asked:
    """Models to run in one importer and engine."""

    importer: str
    engine: str
    files: dict[str, Path]  # by key, the file that OpenCV reads
    arrays: Path  # the .npz with each model's inputs
    batches: bool  # whether the files take several images


def answers(asked: Asked) -> Iterator[tuple[str, Any]]:
    """Yield each model's key with its arrays, or with an Outcome where its process died."""
    left = list(asked.files)
    while left:
        with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as name:
            folder = Path(name)
            ending = _run(asked, left, folder)
            done, last = _journal(folder)
            for key in done:
                with np.load(folder / f"{key}.npz", allow_pickle=False) as found:
                    yield key, dict(found)
            left = [key for key in left if key not in done]
            if not left:
                return
            # The first that did not end is the one that was begun: of others nothing is known.
            key, stage = last if last and last[0] == left[0] else (left[0], "start")
            yield key, _death(key, stage, ending)
            left.remove(key)


def _run(asked: Asked, keys: Sequence[str], folder: Path) -> Ending:
    request = {
        "importer": asked.importer,
        "engine": asked.engine,
        "arrays": str(asked.arrays),
        "answers": str(folder),
        "seconds": SECONDS,
        "models": [
            {"key": key, "file": str(asked.files[key]), "batch": asked.batches} for key in keys
        ],
    }
    file = folder / "request.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    limit = 60 + SECONDS * len(keys)
    return run_module("conformance.opencv.generated", [str(file)], folder / "log", limit)


def _journal(folder: Path) -> tuple[list[str], Any]:
    """Return the models that are done, and the key and stage begun last."""
    path = folder / "journal"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    steps = [line.split() for line in lines]
    return [key for key, stage in steps if stage == "end"], steps[-1] if steps else None


def _death(key: str, stage: str, ending: Ending) -> Outcome:
    hung = ending.code is None or ending.signal == HUNG
    how = f"no end within {SECONDS:g} s" if hung else ending.signal or f"exit code {ending.code}"
    return Outcome(key, "hang" if hung else "crash", stage, detail=how)


def judge_all(asked: Asked, judge: Judge, arrays: Any, runtime: str) -> Iterator[Outcome]:
    """Yield the outcome of each model. arrays: the opened .npz. runtime: its own, "" for none."""
    for key, found in answers(asked):
        if isinstance(found, Outcome):
            yield found
            continue
        own = {name: arrays[f"{key}/{name}"] for name in ("f32", "f64")}
        if runtime:
            own["runtime"] = arrays[f"{key}/{runtime}"]
        yield judge.judge(key, own, found)
