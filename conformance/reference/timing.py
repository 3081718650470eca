"""Inference times of TensorFlow: the frozen function, and the eager call that the tutorial times.

``python -m conformance.reference.timing REQUEST.json`` runs a few inferences in a process of its
own and prints its peak memory: this process may hold OpenCV and other models besides.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.pack.format import GRAPH, read_manifest
from conformance.processes.child import ask_module
from conformance.processes.inference import Array, Infer, repeated, warm_up
from conformance.processes.machine import peak_mib
from conformance.processes.serve import answer_once

from . import use_threads
from .own.keras import load_keras
from .weights import build_model


@dataclass(frozen=True)
class Request:
    """What is to be timed. pack: its folder. eager: not frozen.

    weights: as for build_model, or the path of a user's own model.
    """

    pack: str
    weights: str
    eager: bool
    threads: int
    batch: int


def load_inference(request: Request) -> Infer:
    """Return a function that runs the images through the model on request.threads, once a call.

    An array in, an array out. Raises ConformanceError where TensorFlow already runs with another
    number of threads, which it can't change any more.
    """
    _set_threads(request.threads)
    inputs = np.load(Path(request.pack, "inputs.npy"), allow_pickle=False)
    images = repeated(inputs, request.batch)
    return (_eager if request.eager else _frozen)(request, images)


def _set_threads(threads: int) -> None:
    # The reference is made deterministic; a user's inference is not.
    disable_op_determinism()
    threading = tf.config.threading
    with suppress(RuntimeError):  # it has begun: what counts is with how many
        use_threads(threads)
    used = (
        threading.get_intra_op_parallelism_threads(),
        threading.get_inter_op_parallelism_threads(),
    )
    if used != (threads, 1):
        raise ConformanceError(
            f"TensorFlow runs with {used[0]} threads an operation and {used[1]} operations at once "
            f"instead of {threads} and 1: time one number of threads a session"
        )


def frozen_function(folder: Path, output: str = "") -> Any:
    """Return the frozen graph of the pack in `folder` as a function: NHWC tensor to softmax.

    output: the node of another output than the first.
    """
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString((folder / GRAPH).read_bytes())
    tensors = read_manifest(folder).tensors
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    return whole.prune(tensors["input"] + ":0", (output or tensors["output"]) + ":0")


def _frozen(request: Request, images: Array) -> Infer:
    function = frozen_function(Path(request.pack))
    return lambda: np.asarray(function(tf.constant(images)))


def _eager(request: Request, images: Array) -> Infer:
    manifest = read_manifest(Path(request.pack))
    if manifest.own is not None:
        model = load_keras(Path(request.weights))
        return lambda: np.asarray(tf.nest.flatten(model(images))[0])
    model = build_model(get_model(manifest.model), request.weights)
    return lambda: np.asarray(model(images))


def peak_in_child(request: Request, timeout: float) -> float:
    """Return the peak MiB of a process that does just these inferences.

    Raises ConformanceError with the last lines it said when it fails or takes over `timeout` s.
    """
    arguments, failure = [json.dumps(asdict(request))], f"TensorFlow on {request.pack}"
    return float(ask_module(__name__, arguments, timeout, failure))


def _peak() -> Optional[float]:
    warm_up(load_inference(Request(**json.loads(sys.argv[1]))))
    return peak_mib()


if __name__ == "__main__":
    answer_once(_peak)
