"""A frozen graph as an ONNX file, by tf2onnx, and what ONNX Runtime says. Needs the extra onnx."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import numpy as np
import tensorflow as tf

from . import quiet
from .graphdef import Array, Graph, embedded, sources, tag, varint

LARGE = 32 << 20


def convert(graph: Graph, shape: list[int], path: Path) -> tuple[str, str]:
    """Write `graph` to `path` for images of `shape` [H, W, C]; return its two outer tensors.

    tf2onnx's own opset, any batch, and the input as NCHW, which is what cv2.dnn.blobFromImage gives
    (``--inputs-as-nchw``); without that OpenCV has to be fed NHWC and answers the same bits.
    """
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    given, result = f"{graph.input}:0", f"{graph.output}:0"
    beside = _large_matrices(graph)
    skeleton = replace(
        graph, constants={n: v for n, v in graph.constants.items() if n not in beside}
    )
    # Else tf2onnx copies the graph before each of its dozen optimisers, to go on if one fails:
    # 7 GiB for 100 MB of weights.
    with quiet(), mock.patch.dict(os.environ, {"TF2ONNX_CATCH_ERRORS": "FALSE"}):
        model, _ = tf2onnx.convert.from_graph_def(
            embedded(skeleton),
            input_names=[given, *(f"{name}:0" for name in beside)],
            output_names=[result],
            inputs_as_nchw=[given] if len(shape) == 3 else None,
            outputs_as_nchw=[result] if _rank(graph) == 4 else None,
        )
    kept = [entry for entry in model.graph.input if entry.name == given]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    with path.open("wb") as file:
        file.write(model.SerializeToString())
        for name, value in beside.items():
            _append_initializer(file, f"{name}:0", value)
    return given, result


def _large_matrices(graph: Graph) -> dict[str, Array]:
    """Return the kernels of more than LARGE bytes that are used by one MatMul, as it stands.

    tf2onnx takes over 25 times the memory of the weights that it is given, 15 GiB for vgg16. These
    it would not change, so it gets inputs in their place, and they are appended to its file.
    """
    users = Counter(name for node in graph.definition.node for name in sources(node))
    kernels = {
        sources(node)[1]
        for node in graph.definition.node
        if node.op == "MatMul" and not (node.attr["transpose_a"].b or node.attr["transpose_b"].b)
    }
    return {
        name: value
        for name, value in graph.constants.items()
        if name in kernels and users[name] == 1 and value.nbytes > LARGE
    }


def _append_initializer(file: BinaryIO, name: str, value: Array) -> None:
    """Append ModelProto.graph (7) > initializer (5) > raw_data (9): protobuf merges graphs."""
    import onnx

    head = onnx.TensorProto(name=name, dims=value.shape, data_type=onnx.TensorProto.FLOAT)
    tensor = head.SerializeToString() + tag(9) + varint(value.nbytes)
    initializer = tag(5) + varint(len(tensor) + value.nbytes) + tensor
    file.write(tag(7) + varint(len(initializer) + value.nbytes) + initializer)
    file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)


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
