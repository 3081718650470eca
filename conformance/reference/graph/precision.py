"""The same graph with every float32 operation in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from conformance.errors import ConformanceError
from conformance.reference.graph import (
    DOUBLE,
    FLOAT,
    Array,
    Graph,
    NodeDef,
    constant,
    operation,
    placeholder,
    source,
)

_INT = tf.int32.as_datatype_enum


def promoted(graph: Graph) -> Graph:
    """Return `graph` in float64, its weights the float32 values, which float64 holds exactly.

    The weights stay float32 where they are fed and are cast inside TensorFlow. The model's own
    scalars, such as a batch norm's epsilon, become what a Keras float64 model has (_decimal).
    Nodes keep their names; the input becomes float64. Operations without a float64 kernel
    (_WITHOUT_DOUBLE) are written out as arithmetic. Raises ConformanceError for a graph that
    trains or is NCHW.
    """
    definition = tf.compat.v1.GraphDef(versions=graph.definition.versions)
    constants: dict[str, Array] = {}
    for node in graph.definition.node:
        if node.name in graph.constants:
            value = graph.constants[node.name]
            if value.dtype == np.float32:
                feed = placeholder(f"{node.name}/float32", value.dtype, value.shape)
                definition.node.extend(
                    [feed, operation("Cast", node.name, [feed.name], SrcT=FLOAT, DstT=DOUBLE)]
                )
                constants[feed.name] = value
                continue
            constants[node.name] = value
        definition.node.extend(
            _bilinear(node, graph) if node.op == "ResizeBilinear" else _promoted_nodes(node)
        )
    return replace(graph, definition=definition, constants=constants)


def _promoted_nodes(node: Any) -> Iterator[Any]:
    if node.op in _WITHOUT_DOUBLE:
        yield from _WITHOUT_DOUBLE[node.op](node)
    elif node.op == "Const" and node.attr["dtype"].type == FLOAT:
        value = tf.make_ndarray(node.attr["value"].tensor)
        yield constant(node.name, _decimal(value) if value.ndim == 0 else value.astype(np.float64))
    else:
        copy = NodeDef.FromString(node.SerializeToString())
        for attribute in copy.attr.values():
            if attribute.type == FLOAT:
                attribute.type = DOUBLE
            types = [DOUBLE if kind == FLOAT else kind for kind in attribute.list.type]
            if types:
                attribute.list.type[:] = types
        yield copy


def _decimal(value: Any) -> Array:
    """Return the shortest decimal number that rounds to the float32 `value`: 0.001 for 0.001f.

    A source says 0.001; the float32 nearest to it is off by 5e-11, which shows in float64.
    """
    return np.array(float(str(np.float32(value))), np.float64)


def _arithmetic(op: str, name: str, *operands: str) -> Any:
    return operation(op, name, operands, T=DOUBLE)


def _batch_norm(node: Any) -> Iterator[Any]:
    """Yield (x - mean) / sqrt(variance + epsilon) * scale + offset, the last node so named."""
    if "is_training" not in node.attr or node.attr["is_training"].b:
        raise ConformanceError(
            f"{node.op} {node.name!r} computes its own statistics, as while training: freeze the "
            "graph for inference (training=False)"
        )
    if node.attr["data_format"].s not in (b"", b"NHWC"):
        raise ConformanceError(
            f"{node.op} {node.name!r} is {node.attr['data_format'].s.decode()}: "
            "expected NHWC, channels last"
        )
    x, scale, offset, mean, variance = node.input
    name = f"{node.name}/float64"  # the parts' names must not meet the model's own
    yield constant(f"{name}/epsilon", _decimal(node.attr["epsilon"].f))
    yield _arithmetic("AddV2", f"{name}/variance", variance, f"{name}/epsilon")
    yield _arithmetic("Rsqrt", f"{name}/rsqrt", f"{name}/variance")
    yield _arithmetic("Mul", f"{name}/factor", f"{name}/rsqrt", scale)
    yield _arithmetic("Sub", f"{name}/centred", x, mean)
    yield _arithmetic("Mul", f"{name}/scaled", f"{name}/centred", f"{name}/factor")
    yield _arithmetic("AddV2", node.name, f"{name}/scaled", offset)


def _local_response(node: Any) -> Iterator[Any]:
    """Yield x / (bias + alpha * sum of x^2 over the channels within depth_radius) ^ beta.

    The channels become a side of their own, along which a window of ones sums the squares.
    """
    (x,), name = node.input, f"{node.name}/float64"
    radius = node.attr["depth_radius"].i
    yield _arithmetic("Square", f"{name}/square", x)
    yield constant(f"{name}/axis", np.array(-1, np.int32))
    deep = [f"{name}/square", f"{name}/axis"]
    yield operation("ExpandDims", f"{name}/deep", deep, T=DOUBLE, Tdim=_INT)
    pad = [[0, 0], [0, 0], [0, 0], [radius, radius], [0, 0]]
    yield constant(f"{name}/pad", np.array(pad, np.int32))
    padded = [f"{name}/deep", f"{name}/pad"]
    yield operation("Pad", f"{name}/padded", padded, T=DOUBLE, Tpaddings=_INT)
    yield constant(f"{name}/ones", np.ones((1, 1, 2 * radius + 1, 1, 1)))
    window = _arithmetic("Conv3D", f"{name}/window", f"{name}/padded", f"{name}/ones")
    window.attr["strides"].list.i.extend([1] * 5)
    window.attr["padding"].s = b"VALID"
    yield window
    squeezed = _arithmetic("Squeeze", f"{name}/sum", f"{name}/window")
    squeezed.attr["squeeze_dims"].list.i.append(-1)
    yield squeezed
    for key in ("bias", "alpha", "beta"):
        yield constant(f"{name}/{key}", _decimal(node.attr[key].f))
    yield _arithmetic("Mul", f"{name}/scaled", f"{name}/sum", f"{name}/alpha")
    yield _arithmetic("AddV2", f"{name}/biased", f"{name}/scaled", f"{name}/bias")
    yield _arithmetic("Pow", f"{name}/divisor", f"{name}/biased", f"{name}/beta")
    yield _arithmetic("RealDiv", node.name, x, f"{name}/divisor")


def _bilinear(node: Any, graph: Graph) -> Iterator[Any]:
    """Yield a bilinear resizing as two products with the matrices of its weights.

    Source: compute_interpolation_weights in tensorflow/core/kernels/image/resize_bilinear_op.cc,
    and the scalers in tensorflow/core/util/image_resizer_state.h.
    """
    name, x = f"{node.name}/float64", node.input[0]
    half, corners = (node.attr[key].b for key in ("half_pixel_centers", "align_corners"))
    sizes = (graph.values[name].shape.as_list()[1:3] for name in (source(x), node.name))
    for (before, after), equation, result in zip(zip(*sizes), _ALONG, (f"{name}/rows", node.name)):
        yield constant(f"{result}/weights", _weights(before, after, half, corners))
        product = _arithmetic("Einsum", result, f"{result}/weights", x)
        product.attr["N"].i, product.attr["equation"].s = 2, equation
        yield product
        x = result


_ALONG = (b"ih,bhwc->biwc", b"jw,biwc->bijc")


def _weights(source: int, target: int, half: bool, corners: bool) -> Array:
    """Return the [target, source] weights of a linear interpolation along one side."""
    places = np.arange(target, dtype=np.float64)
    if corners and target > 1:
        places = places * (source - 1) / (target - 1)
    else:
        places = (places + 0.5) * source / target - 0.5 if half else places * source / target
    low = np.floor(places)
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    np.add.at(matrix, (rows, np.clip(low, 0, source - 1).astype(int)), 1 - (places - low))
    np.add.at(matrix, (rows, np.clip(np.ceil(places), 0, source - 1).astype(int)), places - low)
    return matrix


# Operations that have no float64 kernel, or one that computes in float32.
_WITHOUT_DOUBLE: dict[str, Callable[[Any], Iterator[Any]]] = {
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _batch_norm),
    "LRN": _local_response,
}
