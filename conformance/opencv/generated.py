"""Many small models in one process: ``python -m conformance.opencv.generated REQUEST.json``.

REQUEST: importer, engine, "files" (an .npz with ``<key>/<importer>``), "arrays" (one with
``<key>/inputs``), "answers" (a folder), "seconds" that one model may take, "batches" (whether files
take several images), "models" (keys). The journal in the answers' folder
says which model and stage was begun last, so that a crash is nobody else's; the answers are written
model by model. generated/run.py is the parent's side.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np

from conformance.candidate import Array, RunConfig

from . import net
from .capability import load_cv2

SUFFIXES = {"tensorflow": ".pb", "tflite": ".tflite", "onnx": ".onnx"}


def main(request: Path) -> None:
    """Run every model that the request names."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    cv2 = load_cv2()
    config = RunConfig(importer=asked["importer"], engine=asked["engine"], threads=1)
    cv2.setNumThreads(1)
    folder = Path(asked["answers"])
    path = folder / f"model{SUFFIXES[config.importer]}"
    with np.load(asked["files"], allow_pickle=False) as files, np.load(
        asked["arrays"], allow_pickle=False
    ) as arrays, (folder / "journal").open("a", encoding="utf-8", buffering=1) as journal:
        for key in asked["models"]:
            path.write_bytes(files[f"{key}/{config.importer}"].tobytes())
            # The kernel ends this process where native code goes on for ever.
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"])

            def begin(stage: str, key: str = key) -> None:
                print(key, stage, file=journal)

            found = run_model(cv2, config, path, arrays[f"{key}/inputs"], asked["batches"], begin)
            np.savez(folder / f"{key}.npz", **found)
            begin("end")


def run_model(
    cv2: Any,
    config: RunConfig,
    path: Path,
    images: Array,
    batches: bool,
    begin: Callable[[str], None],
) -> dict[str, Any]:
    """Return what one model answers, or "error": stage and reason of what OpenCV refused.

    "outputs" [N, …]: each image by itself. "again": the same on the same net. "batch" [2, …]: the
    first two images at once.
    """
    found: dict[str, Any] = {"version": cv2.__version__}
    stage = "parse"
    try:
        begin(stage)
        candidate = net.read(cv2, path, config)
        net.configure(cv2, candidate, config)
        stage = "forward"
        begin(stage)
        for name in ("outputs", "again"):
            answers = [net.forward(candidate, image[None]) for image in images]
            found[name] = np.concatenate(answers)
        if batches:
            stage = "batch"
            begin(stage)
            found["batch"] = net.forward(candidate, images[:2])
    except Exception as error:  # whatever the binding raises is the answer
        reason, node, _ = net.explain(error)
        found["error"] = np.array([stage, reason[:500], node or ""])
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
