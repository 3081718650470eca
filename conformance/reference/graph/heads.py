"""What a network answers: its outputs, be they softmax, sigmoid or plain values, and logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from conformance.errors import ConformanceError
from conformance.reference.graph import Head

# They give the same numbers, in another shape at most.
_SAME_VALUES = ("Identity", "Reshape", "Squeeze", "ExpandDims")
_SQUEEZERS = {"Softmax": "softmax", "Sigmoid": "sigmoid"}


def find_heads(names: Sequence[str], tensors: Sequence[Any]) -> tuple[Head, ...]:
    """Return the head of each of the graph's output `tensors`; those of one node count once.

    Raises ConformanceError for an output that is not float32 or whose shape is not known.
    """
    found: dict[str, Head] = {}
    for name, tensor in zip(names, tensors):
        head = _head(name, tensor)
        found.setdefault(head.output, head)
    return tuple(found.values())


def _head(name: str, tensor: Any) -> Head:
    _check(name, tensor)
    operation = _behind(tensor.op, ("Identity",))
    shape = tuple(tensor.shape.as_list()[1:])
    last = _behind(operation, _SAME_VALUES)
    kind = _SQUEEZERS.get(last.type, "values")
    if kind == "values" or last.inputs[0].shape.rank != 2 or len([s for s in shape if s > 1]) > 1:
        return Head(name, operation.name, operation.name, "values", shape)
    return Head(name, operation.name, last.inputs[0].op.name, kind, shape)


def _check(name: str, tensor: Any) -> None:
    if tensor.dtype != tf.float32 or tensor.value_index != 0:
        which = f"value {tensor.value_index} of {tensor.op.name!r}, " if tensor.value_index else ""
        raise ConformanceError(
            f"output {name!r} is {which}{tensor.dtype.name}: expected a node that gives float32"
        )
    if tensor.shape.rank is None or not tensor.shape[1:].is_fully_defined():
        raise ConformanceError(
            f"output {name!r} has the shape {tensor.shape}, which is not known before it runs: "
            "give the input's size with --model-size HEIGHT WIDTH"
        )
    if tensor.shape.rank < 2:
        raise ConformanceError(
            f"output {name!r} has the shape {tensor.shape}: expected a row for each image"
        )


def _behind(operation: Any, passed: Sequence[str]) -> Any:
    """Return the first operation before `operation`, or itself, that is none of `passed`."""
    while operation.type in passed and operation.inputs[0].dtype == tf.float32:
        operation = operation.inputs[0].op
    return operation
