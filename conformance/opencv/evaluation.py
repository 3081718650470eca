"""OpenCV as the evaluation's child: ``python -m conformance.opencv.evaluation REQUEST``.

REQUEST is JSON: model, graph (a path), config (of RunConfig), mode, size, classes, batch; each
line of stdin then names a shard's pixels and outputs (see conformance.processes.serve).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conformance.candidate import Array, RunConfig
from conformance.inputs.preprocessing import get_mode
from conformance.processes.inference import answer_shard
from conformance.processes.serve import Answer, Request, serve

from . import net
from .capability import load_cv2


def prepare(request: Request) -> Answer:
    """Read the graph, run it once, and return what answers the shards."""
    cv2 = load_cv2()
    config = RunConfig(**request["config"])
    if config.threads is not None:
        cv2.setNumThreads(config.threads)
    subject = net.Subject(request["model"], config, cv2.__version__)
    with net.stage("parse", subject):
        candidate = net.read(cv2, Path(request["graph"]), config)
    with net.stage("setup", subject):
        net.configure(cv2, candidate, config)

    def blob(pixels: Array) -> Array:
        return net.to_blob(get_mode(request["mode"]).apply(pixels))

    def infer(images: Array) -> Array:
        candidate.setInput(images)
        return np.asarray(candidate.forward())

    def answer(asked: Request) -> dict[str, Any]:
        with net.stage("forward", subject):
            seconds = answer_shard(asked, request["batch"], blob, infer, request["classes"])
        return {**seconds, "version": cv2.__version__}

    with net.stage("forward", subject):
        first = blob(np.zeros((request["batch"], request["size"], request["size"], 3), np.uint8))
        net.given(candidate, first, candidate.forward)
    return answer


if __name__ == "__main__":
    serve(prepare)
