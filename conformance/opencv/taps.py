"""A TFLite or ONNX file whose inner tensors are outputs too, for OpenCV 5's new engine.

That engine hands out nothing but a model's outputs, and readNetFromTFLite and readNetFromONNX take
no list of further ones. So the file is given more outputs, without any library of its format:
what is added stands before or after the file's own bytes, which stay as they are.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Union

_U32, _I32, _U16 = struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<H")
_FLOAT = 1  # onnx.TensorProto.FLOAT
_DEQUANTIZE = 6  # tflite.BuiltinOperator
# Fields of tables in TensorFlow's schema.fbs.
_MODEL = {"version": 0, "operator_codes": 1, "subgraphs": 2, "buffers": 4}
_SUBGRAPH = {"tensors": 0, "inputs": 1, "outputs": 2, "operators": 3}
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2
_TENSOR_BUFFER, _TENSOR_NAME = 2, 3
_BUFFER_DATA = 0
# The file's own bytes keep the alignment that its tensors were given.
_ALIGNMENT = 64


def write_tapped(importer: str, model: Path, tensors: Sequence[str], path: Path) -> None:
    """Write to `path` the file `model` with `tensors` as outputs.

    Of an ONNX file, besides its own; of a TFLite file, instead of its own. Raises ValueError for a
    tensor that is not in the file.
    """
    _WRITERS[importer](model, tensors, path)


def _write_onnx(model: Path, tensors: Sequence[str], path: Path) -> None:
    """Append a ModelProto with a graph that has outputs only: protobuf merges the two.

    ModelProto.graph is field 7, GraphProto.output 12; OpenCV wants each to have a shape, and heeds
    none that is unknown.
    """
    shutil.copyfile(model, path)
    unknown = _field(2, _field(1, _field(2, b"N")) * 4)
    kind = _field(1, bytes([1 << 3, _FLOAT]) + unknown)
    outputs = (_field(12, _field(1, name.encode()) + _field(2, kind)) for name in tensors)
    with path.open("ab") as file:
        file.write(_field(7, b"".join(outputs)))


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _write_tflite(model: Path, tensors: Sequence[str], path: Path) -> None:
    """Put a new model table before the file's bytes, with one more operation.

    The importer takes for the model's outputs what its last operation gives (populateNet in
    tflite_importer.cpp), and makes no layer of a DEQUANTIZE whose input is a constant. So that is
    the operation, of any constant, and it "gives" the tensors. Offsets in a flatbuffer point
    forward only, from the new tables to the old ones.
    """
    old = _Buffer(model.read_bytes())
    front = _front(old, tensors)
    with path.open("wb") as file:
        file.write(front)
        file.write(old.data)


class _Buffer:
    """A flatbuffer to read: `at` arguments are positions in its bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def target(self, at: int) -> int:
        return at + int(_U32.unpack_from(self.data, at)[0])

    def field(self, table: int, number: int) -> int:
        """Return where a table's field is; raise ValueError where the table has none."""
        vtable = table - _I32.unpack_from(self.data, table)[0]
        size = _U16.unpack_from(self.data, vtable)[0]
        slot = 4 + 2 * number
        offset = _U16.unpack_from(self.data, vtable + slot)[0] if slot < size else 0
        if not offset:
            raise ValueError(f"the TFLite file has a table without field {number}")
        return int(table + offset)

    def numbers(self, at: int) -> list[int]:
        """Return the vector of int32 that the field at `at` refers to."""
        vector = self.target(at)
        count = _U32.unpack_from(self.data, vector)[0]
        return list(struct.unpack_from(f"<{count}i", self.data, vector + 4))

    def tables(self, at: int) -> list[int]:
        """Return the tables of the vector that the field at `at` refers to."""
        vector = self.target(at)
        count = _U32.unpack_from(self.data, vector)[0]
        return [self.target(vector + 4 + 4 * index) for index in range(count)]

    def text(self, at: int) -> str:
        """Return the string that the field at `at` refers to."""
        start = self.target(at)
        size = _U32.unpack_from(self.data, start)[0]
        return self.data[start + 4 : start + 4 + size].decode("utf-8")


# What a field of a new table refers to: a part of the front by name, or a position in the old file.
_Target = Union[str, int]


class _Front:
    """New tables and vectors, and the references from them that are filled in at the end."""

    def __init__(self) -> None:
        self.data = bytearray(4) + b"TFL3"
        self.parts: dict[str, int] = {}
        self.references: list[tuple[int, _Target]] = []

    def refer(self, target: _Target) -> None:
        self.references.append((len(self.data), target))
        self.data += bytes(4)

    def table(self, name: str, numbers: dict[int, int], references: dict[int, _Target]) -> None:
        fields = sorted([*numbers, *references])
        slots = [4 + 4 * fields.index(i) if i in fields else 0 for i in range(fields[-1] + 1)]
        vtable = len(self.data)
        self.data += struct.pack(
            f"<{2 + len(slots)}H", 4 + 2 * len(slots), 4 + 4 * len(fields), *slots
        )
        self.data += bytes(-len(self.data) % 4)
        self.parts[name] = len(self.data)
        self.data += _I32.pack(len(self.data) - vtable)
        for number in fields:
            if number in numbers:
                self.data += _U32.pack(numbers[number])
            else:
                self.refer(references[number])

    def vector(self, name: str, targets: Sequence[_Target]) -> None:
        self.parts[name] = len(self.data)
        self.data += _U32.pack(len(targets))
        for target in targets:
            self.refer(target)

    def numbers(self, name: str, values: Sequence[int]) -> None:
        self.parts[name] = len(self.data)
        self.data += struct.pack(f"<{1 + len(values)}i", len(values), *values)

    def text(self, name: str, value: bytes) -> None:
        self.parts[name] = len(self.data)
        self.data += _U32.pack(len(value)) + value + bytes(4 - len(value) % 4)

    def finished(self, root: str) -> bytes:
        self.data += bytes(-len(self.data) % _ALIGNMENT)
        for at, target in self.references:
            end = self.parts[target] if isinstance(target, str) else len(self.data) + target
            _U32.pack_into(self.data, at, end - at)
        _U32.pack_into(self.data, 0, self.parts[root])
        return bytes(self.data)


def _front(old: _Buffer, names: Sequence[str]) -> bytes:
    model = old.target(0)
    codes = old.tables(old.field(model, _MODEL["operator_codes"]))
    (graph,) = old.tables(old.field(model, _MODEL["subgraphs"]))
    operators = old.tables(old.field(graph, _SUBGRAPH["operators"]))
    tensors = old.tables(old.field(graph, _SUBGRAPH["tensors"]))
    place = {old.text(old.field(t, _TENSOR_NAME)): index for index, t in enumerate(tensors)}
    absent = [name for name in names if name not in place]
    if absent:
        raise ValueError(f"the TFLite file has no tensor {absent[0]!r}")
    version = _U32.unpack_from(old.data, old.field(model, _MODEL["version"]))[0]
    kept = {n: old.target(old.field(graph, n)) for n in (0, 1, 2)}
    front = _Front()
    buffers = old.target(old.field(model, _MODEL["buffers"]))
    front.table("model", {0: version}, {1: "codes", 2: "graphs", 4: buffers})
    front.vector("codes", [*codes, "code"])
    front.table("code", {0: _DEQUANTIZE, 3: _DEQUANTIZE}, {})
    front.vector("graphs", ["graph"])
    front.table("graph", {}, {**kept, 3: "operators", 4: "name"})
    front.text("name", b"main")
    front.vector("operators", [*operators, "operator"])
    front.table("operator", {0: len(codes)}, {1: "constant", 2: "taps"})
    front.numbers("constant", [_a_constant(old, model, operators, tensors)])
    front.numbers("taps", [place[name] for name in names])
    return front.finished("model")


def _a_constant(old: _Buffer, model: int, operators: list[int], tensors: list[int]) -> int:
    """Return the number of a tensor that has data in the file."""
    buffers = old.tables(old.field(model, _MODEL["buffers"]))
    for operator in operators:
        for number in old.numbers(old.field(operator, _OPERATOR_INPUTS))[1:]:
            try:
                at = old.field(tensors[number], _TENSOR_BUFFER)
                old.field(buffers[_U32.unpack_from(old.data, at)[0]], _BUFFER_DATA)
            except (ValueError, IndexError):
                continue
            return number
    raise ValueError("the TFLite file has no operation with a constant")


_WRITERS: dict[str, Callable[[Path, Sequence[str], Path], None]] = {
    "tflite": _write_tflite,
    "onnx": _write_onnx,
}
