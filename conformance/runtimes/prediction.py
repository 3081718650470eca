"""A file's runtime as `predict`'s child: ``python -m conformance.runtimes.prediction REQUEST``.

REQUEST is JSON: pack (its folder), head (which of the outputs), threads. Each line of stdin then
asks for one answer (see `prepare`); conformance.processes.serve is the protocol.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conformance.pack.format import Pack, read_manifest
from conformance.pack.request import runtime_title
from conformance.processes.inference import timed
from conformance.processes.serve import Answer, Request, serve

from . import RUNTIMES


class Predictor:
    """The pack's own file, ready in its runtime."""

    def __init__(self, request: Request) -> None:
        folder, self.head = Path(request["pack"]), request["head"]
        pack = Pack(folder, read_manifest(folder))
        self.importer = pack.manifest.importer
        images, runtime = pack.load("inputs"), RUNTIMES[self.importer]
        self.infer = runtime.inference(pack.graph_path, images, request["threads"])
        self.warm = False

    def predict(self, request: Request) -> dict[str, Any]:
        """Run the blob in request["blob"], NCHW; write the outputs as .npy."""
        (image,) = np.load(request["blob"], allow_pickle=False).transpose(0, 2, 3, 1)
        outputs, ms = timed(lambda: self.infer(image)[self.head], self.warm)
        self.warm = True
        np.save(request["outputs"], outputs.reshape(1, -1))
        return {
            "version": runtime_title(self.importer),
            "input_shape": (1, *image.shape),
            "output_shape": outputs.shape,
            "ms": ms,
        }


def prepare(request: Request) -> Answer:
    """Load the file and return what answers."""
    return Predictor(request).predict


if __name__ == "__main__":
    serve(prepare)
