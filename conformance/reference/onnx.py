"""A frozen graph as an ONNX file, by tf2onnx, and what ONNX Runtime says. Needs the extra onnx."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from . import quiet
from .graphdef import Array, Graph, embedded


def convert(graph: Graph, shape: list[int], path: Path) -> tuple[str, str]:
    """Write `graph` to `path` for images of `shape` [H, W, C]; return its two outer tensors.

    tf2onnx's own opset, any batch, and the input as NCHW, which is what cv2.dnn.blobFromImage gives
    (``--inputs-as-nchw``); without that OpenCV has to be fed NHWC and answers the same bits.
    """
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    given, result = f"{graph.input}:0", f"{graph.output}:0"
    # Else tf2onnx copies the graph before each of its dozen optimisers, to go on if one fails:
    # 7 GiB for 100 MB of weights.
    with quiet(), mock.patch.dict(os.environ, {"TF2ONNX_CATCH_ERRORS": "FALSE"}):
        model, _ = tf2onnx.convert.from_graph_def(
            embedded(graph),
            input_names=[given],
            output_names=[result],
            inputs_as_nchw=[given] if len(shape) == 3 else None,
            outputs_as_nchw=[result] if _rank(graph) == 4 else None,
        )
    path.write_bytes(model.SerializeToString())
    return given, result


def _rank(graph: Graph) -> int:
    with tf.Graph().as_default() as inferred:
        tf.import_graph_def(graph.definition, name="")
    return int(inferred.get_tensor_by_name(f"{graph.output}:0").shape.rank)


def operations(path: Path) -> list[tuple[str, str]]:
    """Return (tensor, operation's name) of what each operation gives."""
    return [(node.output[0], node.name) for node in _load(path).graph.node]


def run(path: Path, images: Array, inner: bool) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Yield, image by image, the output [1, C] and, if asked for, {inner tensor: value}.

    images: float32 NHWC. By ONNX Runtime, which is kept from rewriting the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    model = _load(path)
    result, names = model.graph.output[0].name, [node.output[0] for node in model.graph.node]
    if inner:
        del model.graph.output[:]
        model.graph.output.extend(_untyped(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    given = session.get_inputs()[0]
    channels_first = len(given.shape) == 4
    for image in images:
        blob = image[None].transpose(0, 3, 1, 2) if channels_first else image[None]
        wanted = names if inner else [result]
        found = session.run(wanted, {given.name: np.ascontiguousarray(blob)})
        values: dict[str, Any] = dict(zip(wanted, found))
        yield values[result], values if inner else {}


def _untyped(name: str) -> Any:
    import onnx

    return onnx.ValueInfoProto(name=name)


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))
