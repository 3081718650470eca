"""Generated models run in OpenCV: many in a child process, of which a crash costs one model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conformance.pack.conversion import takes_batches
from conformance.processes.child import Ending, run_module

from .outcomes import Judge, Outcome
from .store import ARRAYS, FILES, GeneratedPack

# What one model may take before it counts as hung; the slowest takes a tenth of a second.
SECONDS = 20.0
HUNG = "SIGALRM"


def outcomes_of(
    pack: GeneratedPack, importer: str, engine: str, judge: Judge
) -> Iterator[Outcome]:
    """Yield the outcome of each model that has a file for the importer, in the pack's order."""
    with np.load(pack.path / ARRAYS, allow_pickle=False) as arrays:
        for key, found in _answers(pack, importer, engine):
            if isinstance(found, Outcome):
                yield found
                continue
            names = {"f32": "f32", "f64": "f64", "runtime": importer}
            own = {
                name: arrays[f"{key}/{array}"]
                for name, array in names.items()
                if array != "tensorflow"
            }
            yield judge.judge(key, own, found)


def _answers(pack: GeneratedPack, importer: str, engine: str) -> Iterator[tuple[str, Any]]:
    """Yield each model's key with its arrays, or with an Outcome where its process died."""
    left = pack.judged(importer)
    while left:
        with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as name:
            folder = Path(name)
            ending = _run(pack, importer, engine, left, folder)
            done, last = _journal(folder)
            for key in done:
                with np.load(folder / f"{key}.npz", allow_pickle=False) as found:
                    yield key, dict(found)
            left = left[len(done) :]
            if left:
                # The next one is the one that was begun: of those after it nothing is known.
                stage = last[1] if last and last[0] == left[0] else "start"
                yield left[0], _death(left[0], stage, ending)
                left = left[1:]


def _run(
    pack: GeneratedPack, importer: str, engine: str, keys: Sequence[str], folder: Path
) -> Ending:
    request = {
        "importer": importer,
        "engine": engine,
        "files": str(pack.path / FILES),
        "arrays": str(pack.path / ARRAYS),
        "answers": str(folder),
        "seconds": SECONDS,
        "batches": takes_batches(importer),
        "models": list(keys),
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
