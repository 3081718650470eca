"""Many small models in one process: ``python -m conformance.opencv.generated REQUEST.json``.

REQUEST: importer, engine, target, "files" (an .npz with ``<key>/<importer>``), "arrays" (one with
``<key>/inputs``), "answers" (a folder), "seconds" that one model may take, "batches" (whether files
take several images), "models" (keys). The journal in the answers' folder
says which model and stage was begun last, so that a crash is nobody else's; the answers are written
model by model. generated/run.py is the parent's side.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import numpy as np

from conformance.candidate import BATCH, Array, RunConfig, read_arrays

from . import kernels, net
from .capability import load_cv2

SUFFIXES = {"tensorflow": ".pb", "tflite": ".tflite", "onnx": ".onnx"}


def main(request: Path) -> None:
    """Run every model that the request names."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    cv2 = load_cv2()
    axes = {axis: asked[axis] for axis in ("importer", "engine", "target")}
    config = RunConfig(**axes, threads=1)
    cv2.setNumThreads(1)
    launched = kernels.count_kernels() if config.on_opencl else Counter()
    folder = Path(asked["answers"])
    path = folder / f"model{SUFFIXES[config.importer]}"
    with (
        np.load(asked["files"], allow_pickle=False) as files,
        np.load(asked["arrays"], allow_pickle=False) as arrays,
        (folder / "journal").open("a", encoding="utf-8", buffering=1) as journal,
    ):
        for key in asked["models"]:
            path.write_bytes(files[f"{key}/{config.importer}"].tobytes())
            # The kernel ends this process where native code goes on for ever.
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"])

            def begin(stage: str, key: str = key) -> None:
                print(key, stage, file=journal)

            file = folder / f"{key}.npz"
            candidate = run_singles(
                cv2, config, path, arrays[f"{key}/inputs"], file, begin, launched
            )
            if candidate is not None and asked["batches"]:
                run_batch(candidate, arrays[f"{key}/inputs"], file, begin)
            begin("end")


def run_singles(
    cv2: Any,
    config: RunConfig,
    path: Path,
    images: Array,
    file: Path,
    begin: Callable[[str], None],
    launched: Counter[str],
) -> Any:
    """Write what each image by itself gives, twice, and return the net; None where it refuses.

    file: gets "outputs" and "again" [N, …], or "error": stage, reason and node. launched: the
    kernels of OpenCL that this process launched.
    """
    found: dict[str, Any] = {}
    stage, candidate = "parse", None
    try:
        begin(stage)
        candidate = net.read(cv2, path, config)
        net.configure(cv2, candidate, config)
        stage = "forward"
        launched.clear()
        for name in ("outputs", "again"):
            begin(stage)
            answers = [net.forward(candidate, image[None]) for image in images]
            reason = net.missing_kernels(candidate, config, launched) if config.on_opencl else ""
            if reason:
                raise ValueError(reason)
            found[name] = np.concatenate(answers)
            stage = "again"
    except Exception as error:  # whatever the binding raises is the answer
        found["error"], candidate = _refusal(stage, error), None
    np.savez(file, **found)
    return candidate


def run_batch(candidate: Any, images: Array, file: Path, begin: Callable[[str], None]) -> None:
    """Add to the file what the first images give at once: "batch" [2, …], or "batch_error"."""
    found: dict[str, Any] = dict(read_arrays(file))
    begin("batch")
    try:
        found["batch"] = net.forward(candidate, images[:BATCH])
    except Exception as error:  # as above
        found["batch_error"] = _refusal("batch", error)
    np.savez(file, **found)


def _refusal(stage: str, error: Exception) -> Any:
    reason, node, _ = net.explain(error)
    return np.array([stage, reason[:500], node or ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
