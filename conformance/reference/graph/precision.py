"""The same graph with every float32 operation in float64."""

from __future__ import annotations

from collections.abc import Iterator
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
)

_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def promoted(graph: Graph) -> Graph:
    """Return `graph` in float64, its weights the float32 values, which float64 holds exactly.

    The weights stay float32 where they are fed and are cast inside TensorFlow. The model's own
    scalars, such as a batch norm's epsilon, become what a Keras float64 model has (_decimal).
    Nodes keep their names; the input becomes float64. FusedBatchNorm, which has no float64 kernel,
    is written out as arithmetic. Raises ConformanceError for a graph that trains or is NCHW.
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
        definition.node.extend(_promoted_nodes(node))
    return replace(graph, definition=definition, constants=constants)


def _promoted_nodes(node: Any) -> Iterator[Any]:
    if node.op in _BATCH_NORMS:
        yield from _batch_norm(node)
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
