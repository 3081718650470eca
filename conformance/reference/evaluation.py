"""TensorFlow as the evaluation's child: ``python -m conformance.reference.evaluation REQUEST``.

REQUEST is JSON: pack (its folder), mode, size, classes, batch, threads (of an operation), at_once
(how many shards have a core each), and weights where the eager Keras model is wanted instead of the
frozen function; each line of stdin then names a shard's pixels and outputs (see
conformance.processes.serve). Shards that are asked for at a time run side by side, so that
TensorFlow's own memory and the weights are needed once for all cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from conformance.inputs.preprocessing import get_mode
from conformance.models import get_model
from conformance.pack.format import read_manifest
from conformance.processes.inference import Array, answer_shard
from conformance.processes.serve import Answer, Request, serve

from . import use_threads
from .timing import frozen_function
from .weights import build_model


def prepare(request: Request) -> Answer:
    """Load the model, run it once, and return what answers the shards.

    The operations are deterministic, so that a shard run again, or beside others, gives the same
    bits.
    """
    use_threads(request["threads"], request["at_once"])
    pack = Path(request["pack"])
    if request.get("weights"):
        spec = get_model(read_manifest(pack).model)
        function: Any = build_model(spec, request["weights"])
    else:
        function = frozen_function(pack)

    def infer(images: Array) -> Array:
        return np.asarray(function(tf.constant(images)))

    def ready(pixels: Array) -> Array:
        return get_mode(request["mode"]).apply(pixels)

    infer(ready(np.zeros((request["batch"], request["size"], request["size"], 3), np.uint8)))
    return lambda asked: answer_shard(asked, request["batch"], ready, infer, request["classes"])


if __name__ == "__main__":
    serve(prepare, side_by_side=True)
