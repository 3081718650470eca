"""Many small models in one process: ``python -m conformance.opencv.generated REQUEST.json``.

REQUEST: importer, engine, "arrays" (an .npz with ``<key>/inputs``), "answers" (a folder), "seconds"
that one model may take, "models": [{"key", "file", "batch"}]. The journal in the answers' folder
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


def main(request: Path) -> None:
    """Run every model that the request names."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    cv2 = load_cv2()
    config = RunConfig(importer=asked["importer"], engine=asked["engine"], threads=1)
    cv2.setNumThreads(1)
    folder = Path(asked["answers"])
    with np.load(asked["arrays"], allow_pickle=False) as arrays, (folder / "journal").open(
        "a", encoding="utf-8", buffering=1
    ) as journal:
        for model in asked["models"]:
            # The kernel ends this process where native code goes on for ever.
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"])

            def begin(stage: str, key: str = model["key"]) -> None:
                print(key, stage, file=journal)

            found = run_model(cv2, config, model, arrays[f"{model['key']}/inputs"], begin)
            np.savez(folder / f"{model['key']}.npz", **found)
            begin("end")


def run_model(
    cv2: Any, config: RunConfig, model: dict[str, Any], images: Array, begin: Callable[[str], None]
) -> dict[str, Any]:
    """Return what one model answers, or "error": stage and reason of what OpenCV refused.

    "outputs" [N, …]: each image by itself. "again": the same on the same net. "batch" [2, …]: the
    first two images at once.
    """
    found: dict[str, Any] = {"version": cv2.__version__}
    stage = "parse"
    try:
        begin(stage)
        candidate = net.read(cv2, Path(model["file"]), config)
        net.configure(cv2, candidate, config)
        stage = "forward"
        begin(stage)
        for name in ("outputs", "again"):
            answers = [net.forward(candidate, image[None]) for image in images]
            found[name] = np.concatenate(answers)
        if model["batch"]:
            stage = "batch"
            begin(stage)
            found["batch"] = net.forward(candidate, images[:2])
    except Exception as error:  # whatever the binding raises is the answer
        reason, node, _ = net.explain(error)
        found["error"] = np.array([stage, reason[:500], node or ""])
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
