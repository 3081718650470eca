"""TensorFlow as the evaluation's child: ``python -m conformance.reference.evaluation REQUEST``.

REQUEST is JSON: pack (its folder), mode, size, classes, batch, threads, and weights where the
eager Keras model is wanted instead of the frozen function; each line of stdin then names a shard's
pixels and outputs (see conformance.processes.serve).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from conformance.inputs.preprocessing import get_mode
from conformance.models import get_model
from conformance.pack.format import read_manifest
from conformance.processes.inference import Array
from conformance.processes.serve import Request, answer_shard, serve

from .timing import frozen_function
from .weights import build_model


def prepare(request: Request) -> Callable[[Request], dict[str, Any]]:
    """Load the model, run it once, and return what answers the shards.

    The operations are deterministic, so that a shard run again gives the same bits.
    """
    tf.config.threading.set_intra_op_parallelism_threads(request["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
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
    serve(lambda: prepare(json.loads(sys.argv[1])))
