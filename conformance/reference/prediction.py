"""TensorFlow as the child of `predict`: ``python -m conformance.reference.prediction REQUEST``.

REQUEST is JSON: pack (its folder), head (which of the outputs), weights (as for build_model), own
(a user's model as OwnModel.as_dict has it, or None), threads. Each line of stdin then asks for one
thing (see `prepare`); conformance.processes.serve is the protocol.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from conformance.inputs.preprocessing import Preprocessing, preprocessing_from
from conformance.models import get_model
from conformance.own_models import own_from
from conformance.pack.format import read_manifest
from conformance.processes.inference import Array, timed
from conformance.processes.serve import Answer, Request, serve

from . import use_threads
from .loader import keras_preprocess, load
from .own import load_own
from .timing import frozen_function
from .weights import build_model


class Predictor:
    """The frozen graph of a pack and, once it is asked for, the Keras model it was made of."""

    def __init__(self, request: Request) -> None:
        use_threads(request["threads"])
        self.request = request
        folder, head = Path(request["pack"]), request["head"]
        self.manifest = read_manifest(folder)
        output = self.manifest.heads[head]["output"] if head else ""
        self.function = frozen_function(folder, output)
        self.own = own_from(request["own"]) if request["own"] else None
        self.warm = False

    @cached_property
    def model(self) -> Callable[[Any], Any]:
        """The Keras model, or the user's own as it was saved, float32: images to the output."""
        if self.own is None:
            model = build_model(get_model(self.manifest.model), self.request["weights"])
            return lambda images: model(images, training=False)
        traced = load_own(self.own).traced
        place = traced.graph.results().index(traced.graph.heads[self.request["head"]].output)
        return lambda images: traced.function(images)[place]

    def predict(self, request: Request) -> dict[str, Any]:
        """Run the blob in request["blob"], NCHW; write the outputs as .npy."""
        images = _nhwc(request["blob"])
        outputs, ms = timed(lambda: np.asarray(self.function(tf.constant(images))), self.warm)
        self.warm = True
        np.save(request["outputs"], outputs.reshape(1, -1))
        return {
            "version": tf.__version__,
            "input_shape": images.shape,
            "output_shape": outputs.shape,
            "ms": ms,
        }

    def explain(self, request: Request) -> dict[str, Any]:
        """Write the softmax after each exchange of a stage to request["stages"], a .npz.

        Returns {"levels": {stage: (mean, greatest)}} of the pixels that it changes.

        See conformance.predict.explanation, which names the stages. request["pixels"]: what
        OpenCV decoded and resized.
        """
        settings = preprocessing_from(request["settings"])
        with np.load(request["pixels"], allow_pickle=False) as arrays:
            pixels = {name: arrays[name][..., ::-1] for name in arrays.files}
        made = {
            "keras": _resized(Path(request["image"]), settings),
            "decoded": _resized(np.ascontiguousarray(pixels["decoded"][0]), settings),
            "resized": pixels["uint8"],
            "float32": pixels["float32"],
        }
        stages = {name: self._keras(rgb) for name, rgb in made.items()}
        np.savez(request["stages"], blob=self._run(_nhwc(request["blob"])), **stages)
        names = list(made)
        return {"levels": {b: _levels(made[a], made[b]) for a, b in zip(names, names[1:])}}

    def _keras(self, rgb: Array) -> Any:
        if self.own is not None:
            return self._run(self.own.preprocess.apply(rgb))
        return self._run(keras_preprocess(get_model(self.manifest.model), rgb))

    def _run(self, images: Array) -> Any:
        return np.asarray(self.model(tf.constant(images))).reshape(1, -1)


def _resized(source: Any, settings: Preprocessing) -> Array:
    """Return what Keras makes of a file or of RGB pixels: uint8 [1, H, W, 3]."""
    if settings.resize:
        source = load(source, settings.resize)
    return load(source, settings.size, settings.crop)[None]


def _levels(before: Array, after: Array) -> tuple[float, float]:
    """Return the mean and the greatest |difference| of pixels."""
    moved = np.abs(after.astype(np.float64) - before)
    return float(moved.mean()), float(moved.max())


def _nhwc(blob: str) -> Array:
    return np.ascontiguousarray(np.load(blob, allow_pickle=False).transpose(0, 2, 3, 1))


def prepare(request: Request) -> Answer:
    """Load the graph and return what answers."""
    predictor = Predictor(request)
    doing = {"predict": predictor.predict, "explain": predictor.explain}
    return lambda asked: doing[asked["do"]](asked)


if __name__ == "__main__":
    serve(prepare)
