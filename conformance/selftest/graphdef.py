"""Encode a TensorFlow GraphDef with NumPy alone, so that self-tests need no TensorFlow.

Only what the tiny network needs of the protobuf wire format (tensorflow/core/framework/
graph.proto, node_def.proto, attr_value.proto, tensor.proto): varints and length-delimited fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

DT_FLOAT, DT_INT32 = 1, 3


def varint(value: int) -> bytes:
    """Encode an integer as a protobuf varint; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(tag: int, value: int) -> bytes:
    """Encode field `tag` holding an integer, a boolean or an enum value."""
    return varint(tag << 3) + varint(value)


def chunk(tag: int, payload: bytes | str) -> bytes:
    """Encode field `tag` holding a string, bytes or a message."""
    data = payload.encode() if isinstance(payload, str) else payload
    return varint(tag << 3 | 2) + varint(len(data)) + data


def shape_proto(shape: Iterable[int]) -> bytes:
    """Encode a TensorShapeProto; -1 is an unknown dimension."""
    return b"".join(chunk(2, number(1, size)) for size in shape)


def of_type(dtype: int) -> bytes:
    """Encode an AttrValue that names a dtype."""
    return number(6, dtype)


def of_shape(shape: Iterable[int]) -> bytes:
    """Encode an AttrValue that holds a shape."""
    return chunk(7, shape_proto(shape))


def of_flag(value: bool) -> bytes:
    """Encode an AttrValue that holds a boolean."""
    return number(5, int(value))


def of_text(value: str) -> bytes:
    """Encode an AttrValue that holds a string."""
    return chunk(2, value)


def of_ints(values: Iterable[int]) -> bytes:
    """Encode an AttrValue that holds a list of integers."""
    return chunk(1, chunk(3, b"".join(varint(value) for value in values)))


def of_array(array: np.ndarray[Any, Any]) -> bytes:
    """Encode an AttrValue that holds a float32 or int32 tensor as `tensor_content`."""
    dtype = {"float32": DT_FLOAT, "int32": DT_INT32}[array.dtype.name]
    content = np.ascontiguousarray(array).tobytes()
    return chunk(8, number(1, dtype) + chunk(2, shape_proto(array.shape)) + chunk(4, content))


@dataclass(frozen=True)
class Node:
    """One NodeDef; `attrs` are encoded AttrValues."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: dict[str, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the NodeDef message."""
        entries = (chunk(5, chunk(1, key) + chunk(2, val)) for key, val in self.attrs.items())
        names = (chunk(3, name) for name in self.inputs)
        return chunk(1, self.name) + chunk(2, self.op) + b"".join(names) + b"".join(entries)


def constant(name: str, array: np.ndarray[Any, Any]) -> Node:
    """Return a Const node that holds `array` (float32 or int32)."""
    dtype = {"float32": DT_FLOAT, "int32": DT_INT32}[array.dtype.name]
    return Node(name, "Const", (), {"dtype": of_type(dtype), "value": of_array(array)})


def operation(name: str, op: str, *inputs: str, **attrs: bytes) -> Node:
    """Return a node of a float32 operation (attribute ``T``)."""
    return Node(name, op, inputs, {"T": of_type(DT_FLOAT), **attrs})


def changed(nodes: Iterable[Node], name: str, **changes: Any) -> list[Node]:
    """Return the nodes with the fields of the node called `name` replaced."""
    return [replace(node, **changes) if node.name == name else node for node in nodes]


def encode_graph(nodes: Iterable[Node]) -> bytes:
    """Return a whole GraphDef: its nodes, then the producer version TensorFlow 2 writes."""
    return b"".join(chunk(1, node.encode()) for node in nodes) + chunk(4, number(1, 1087))


def write_graph(path: Path, nodes: Iterable[Node]) -> None:
    """Write a GraphDef file."""
    path.write_bytes(encode_graph(nodes))
