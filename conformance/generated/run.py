"""Generated models run in OpenCV: many in a child process, of which a crash costs one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from conformance.candidate import RunConfig, read_arrays
from conformance.pack.conversion import takes_batches
from conformance.processes.child import Ending, child_environment, run_child
from conformance.processes.scratch import Scratch

from .outcomes import AT_ONCE, SINGLE, Outcome
from .store import ARRAYS, FILES, GeneratedPack

# Of a model's key, arrays, OpenCV's answers, and whether batches are run: the outcomes.
Verdicts = Callable[[str, dict[str, Any], dict[str, Any], bool], list[Outcome]]
# What one model may take before it counts as hung; the slowest takes a tenth of a second.
SECONDS = 20.0
HUNG = "SIGALRM"
# What runs them; self-tests put another in its place.
CHILD = "conformance.opencv.generated"


def outcomes_of(pack: GeneratedPack, config: RunConfig, judge: Verdicts) -> Iterator[Outcome]:
    """Yield the outcomes of each model that has a file for the importer, in the pack's order.

    config: importer, engine, target and CPU level. judge: as Judge.judge.
    """
    importer = config.importer
    batches = takes_batches(importer)
    with np.load(pack.path / ARRAYS, allow_pickle=False) as arrays:
        for key, answers, death in _answers(pack, config):
            own = {name: arrays[f"{key}/{name}"] for name in ("f32", "f64")}
            if importer != "tensorflow":
                own["runtime"] = arrays[f"{key}/{importer}"]
            if death is None:
                yield from judge(key, own, answers, batches)
            elif death.run == AT_ONCE:
                # Single images were answered before the batch killed the process.
                yield from judge(key, own, answers, False)
                yield death
            else:
                yield death


def _answers(
    pack: GeneratedPack, config: RunConfig
) -> Iterator[tuple[str, dict[str, Any], Optional[Outcome]]]:
    """Yield each model's key and arrays, and an Outcome where it was its process' death.

    A death that a batch comes to is not tried again: on the classic engine nearly all do.
    """
    left = pack.judged(config.importer)
    while left:
        with Scratch() as name:
            folder = Path(name)
            ending = _run(pack, config, left, folder)
            done, last = _journal(folder)
            for key in left[: len(done)]:
                yield key, read_arrays(folder / f"{key}.npz"), None
            left = left[len(done) :]
            if left:
                # The next one is the one that was begun: of those after it nothing is known.
                stage = last[1] if last and last[0] == left[0] else "start"
                if done and stage != "batch":
                    continue  # an earlier one may have damaged the memory: once more, as the first
                key, *left = left
                yield key, read_arrays(folder / f"{key}.npz"), _death(key, stage, ending)


def _run(pack: GeneratedPack, config: RunConfig, keys: Sequence[str], folder: Path) -> Ending:
    request = {
        "importer": config.importer,
        "engine": config.engine,
        "target": config.target,
        "files": str(pack.path / FILES),
        "arrays": str(pack.path / ARRAYS),
        "answers": str(folder),
        "seconds": SECONDS,
        "batches": takes_batches(config.importer),
        "models": list(keys),
    }
    file = folder / "request.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    limit = 60 + SECONDS * len(keys)
    command = [sys.executable, "-m", CHILD, str(file)]
    return run_child(command, limit, child_environment(None, **config.environment))


def _journal(folder: Path) -> tuple[list[str], Any]:
    """Return the models that are done, and the key and stage begun last."""
    path = folder / "journal"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    steps = [line.split() for line in lines]
    return [key for key, stage in steps if stage == "end"], steps[-1] if steps else None


def _death(key: str, stage: str, ending: Ending) -> Outcome:
    hung = ending.code is None or ending.signal == HUNG
    how = f"no end within {SECONDS:g} s" if hung else ending.signal or f"exit code {ending.code}"
    run = AT_ONCE if stage == "batch" else SINGLE
    return Outcome(key, run, "hang" if hung else "crash", stage, detail=how)
