"""The graph as an ONNX file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from conformance.pack.protobuf import message_field

from .converted import Entry, Tensor, carriers_by, read_with
from .converted import absent as absent

READER = "readNetFromONNX"
BEFORE_ENGINE: tuple[str, ...] = ()
# onnx_importer.cpp, extractNodeName: since 4.5.5 the operation's name, before the tensor's; that of
# its first output where the operation has none.
_PREFIXES = ("onnx_node!", "")
_UNNAMED = "onnx_node_output_0!"
_FLOAT = 1  # onnx.TensorProto.FLOAT


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
    ModelProto.graph is field 7, GraphProto.output 12; OpenCV wants each to have a shape, and heeds
    none that is unknown.
    """
    shutil.copyfile(model, path)
    unknown = message_field(2, message_field(1, message_field(2, b"N")) * 4)
    kind = message_field(1, bytes([1 << 3, _FLOAT]) + unknown)
    values = (message_field(1, name.encode()) + message_field(2, kind) for name in tensors)
    with path.open("ab") as file:
        file.write(message_field(7, b"".join(message_field(12, value) for value in values)))


read = partial(read_with, write_tapped)
