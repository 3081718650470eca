"""A frozen graph as an ONNX file, by tf2onnx. Needs the extra onnx."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from unittest import mock

import numpy as np

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
    beside, shapes = _large_matrices(graph), graph.values
    images = [n for n in graph.outputs() if n in shapes and shapes[n].shape.rank == 4]
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
            outputs_as_nchw=[f"{name}:0" for name in images] or None,
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
