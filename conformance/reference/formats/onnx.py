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

from conformance.pack.protobuf import tag, varint
from conformance.reference import quiet
from conformance.reference.graph import Array, Graph, embedded, sources

LARGE = 32 << 20


def convert(graph: Graph, shape: list[int], path: Path) -> tuple[str, str]:
    """Write `graph` to `path` for images of `shape` [H, W, C]; return input and first output.

    tf2onnx's own opset, any batch, and the input as NCHW, which is what cv2.dnn.blobFromImage gives
    (``--inputs-as-nchw``); without that OpenCV has to be fed NHWC and answers the same bits.
    """
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    given, results = f"{graph.input}:0", [f"{name}:0" for name in graph.outputs()]
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
            output_names=results,
            inputs_as_nchw=[given] if len(shape) == 3 else None,
            outputs_as_nchw=_images(graph, results) or None,
        )
    kept = [entry for entry in model.graph.input if entry.name == given]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    with path.open("wb") as file:
        file.write(model.SerializeToString())
        for name, value in beside.items():
            _append_initializer(file, f"{name}:0", value)
    return given, results[0]


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


def _images(graph: Graph, tensors: list[str]) -> list[str]:
    """Return those of the tensors that have four axes."""
    with tf.Graph().as_default() as inferred:
        tf.import_graph_def(graph.definition, name="")
    return [name for name in tensors if inferred.get_tensor_by_name(name).shape.rank == 4]


def operations(path: Path) -> list[tuple[str, str]]:
    """Return (tensor, operation's name) of what each operation gives."""
    import onnx

    return [(node.output[0], node.name) for node in onnx.load(str(path)).graph.node]


def run(path: Path, images: Array, inner: bool) -> Iterator[tuple[list[Array], dict[str, Array]]]:
    """Yield, image by image, the outputs, NHWC, and, if asked for, {inner tensor: value}.

    images: float32 NHWC. By ONNX Runtime, which is kept from rewriting the graph.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    model = onnx.load(str(path))
    results = [output.name for output in model.graph.output]
    names = [node.output[0] for node in model.graph.node]
    if inner:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    given = session.get_inputs()[0]
    channels_first = len(given.shape) == 4
    for image in images:
        blob = image[None].transpose(0, 3, 1, 2) if channels_first else image[None]
        wanted = list(dict.fromkeys([*results, *(names if inner else ())]))
        found = session.run(wanted, {given.name: np.ascontiguousarray(blob)})
        values: dict[str, Any] = dict(zip(wanted, found))
        yield [_channels_last(values[name]) for name in results], values if inner else {}


def _channels_last(value: Any) -> Any:
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
