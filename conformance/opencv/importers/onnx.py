"""The graph as an ONNX file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from conformance.pack.protobuf import fields, message_field, tag, texts, varint

from .converted import Entry, Tensor, carriers_by, needed_for, read_with
from .converted import absent as absent

READER = "readNetFromONNX"
BEFORE_ENGINE: tuple[str, ...] = ()
# onnx_importer.cpp, extractNodeName: since 4.5.5 the operation's name, before the tensor's; that of
# its first output where the operation has none.
_PREFIXES = ("onnx_node!", "")
_UNNAMED = "onnx_node_output_0!"
_FLOAT = 1  # onnx.TensorProto.FLOAT
_GRAPH = 7  # field of ModelProto
_NODE, _OUTPUT = 1, 12  # fields of GraphProto; a NodeProto has inputs and outputs in 1 and 2


def carriers(
    names: Sequence[str], entries: Sequence[Entry], tensors: Sequence[Tensor], engine: str
) -> dict[str, str]:
    """Return {OpenCV layer: graph node whose value it holds}."""

    def layers_of(entry: Tensor) -> list[str]:
        named = (prefix + entry["layer"] for prefix in _PREFIXES if entry["layer"])
        return [*named, _UNNAMED + entry["tensor"], entry["tensor"]]

    return carriers_by(layers_of, names, tensors, engine)


def write_tapped(model: Path, tensors: Sequence[str], path: Path) -> None:
    """Write the file with `tensors` as outputs besides its own to `path`.

    A ModelProto with a graph that has outputs only is appended: protobuf merges the two.
    OpenCV wants each output to have a shape, and heeds none that is unknown.
    """
    shutil.copyfile(model, path)
    with path.open("ab") as file:
        file.write(_outputs(tensors))


def _outputs(tensors: Sequence[str]) -> bytes:
    unknown = message_field(2, message_field(1, message_field(2, b"N")) * 4)
    kind = message_field(1, bytes([1 << 3, _FLOAT]) + unknown)
    values = (message_field(1, name.encode()) + message_field(2, kind) for name in tensors)
    return message_field(_GRAPH, b"".join(message_field(_OUTPUT, value) for value in values))


def write_cut(model: Path, tensor: str, path: Path) -> None:
    """Write what of the file gives `tensor`, its only output then, to `path`.

    Raises ValueError for a tensor that is not in the file.
    """
    whole = memoryview(model.read_bytes())
    # A graph in several parts is one: protobuf merges them.
    inside = [
        field for number, graph, _ in fields(whole) if number == _GRAPH for field in fields(graph)
    ]
    nodes = [payload for number, payload, _ in inside if number == _NODE]
    kept = needed_for(tensor, [(texts(node, 1), texts(node, 2)) for node in nodes])
    with path.open("wb") as file:
        file.writelines(field for number, _, field in fields(whole) if number != _GRAPH)
        place = -1
        for number, _, field in inside:
            place += number == _NODE
            if number != _OUTPUT and (number != _NODE or place in kept):
                file.write(tag(_GRAPH) + varint(len(field)))
                file.write(field)
        file.write(_outputs([tensor]))


read = partial(read_with, write_tapped)
