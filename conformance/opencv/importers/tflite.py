"""The graph as a TFLite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .converted import Entry, Tensor, carriers_by, needed_for, read_with
from .converted import absent as absent

READER = "readNetFromTFLite"
BEFORE_ENGINE: tuple[str, ...] = ()
# Of a fused activation the importer makes a layer of its own (tflite_importer.cpp,
# parseFusedActivation); the one before it bears the tensor's name and holds what goes into it.
_ACTIVATION = "/activ"
_ACTIVATIONS = ("Relu", "Relu6")

# Fields of tables in TensorFlow's schema.fbs.
_VERSION, _CODES, _GRAPHS, _BUFFERS = 0, 1, 2, 4  # of Model
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS, _GRAPH_NAME = range(5)  # of SubGraph
_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = range(3)  # of Operator
_TYPE, _BUFFER, _NAME = 1, 2, 3  # of Tensor
_DATA = 0  # of Buffer
_OLD_BUILTIN, _BUILTIN = 0, 3  # of OperatorCode
_DEQUANTIZE = 6  # BuiltinOperator
# The file's own bytes keep the alignment that its tensors were given.
_ALIGNMENT = 64


def carriers(
    names: Sequence[str], entries: Sequence[Entry], tensors: Sequence[Tensor], engine: str
) -> dict[str, str]:
    """Return {OpenCV layer: graph node whose value it holds}."""
    held = carriers_by(lambda e: (e["tensor"] + _ACTIVATION, e["tensor"]), names, tensors, engine)
    return {**_before_activations(held, set(names), entries), **held}


def _before_activations(
    held: Mapping[str, str], known: set[str], entries: Sequence[Entry]
) -> dict[str, str]:
    """Return the layers in front of fused activations, with what the graph has in front of them."""
    by_node = {entry["node"]: entry for entry in entries}
    taken = set(held.values())
    found = {}
    for layer, node in held.items():
        plain = layer[: -len(_ACTIVATION)] if layer.endswith(_ACTIVATION) else ""
        if plain in known and by_node[node]["op"] in _ACTIVATIONS:
            before = by_node[node]["inputs"][0]
            if before in by_node and before not in taken:
                found[plain] = before
    return found


def write_tapped(model: Path, tensors: Sequence[str], path: Path, cut: bool = False) -> None:
    """Write the file with `tensors` as outputs instead of its own to `path`.

    A new model table stands before the file's bytes, with one more operation. The importer takes
    for the model's outputs what its last operation gives (populateNet in tflite_importer.cpp), and
    makes no layer of a DEQUANTIZE whose input is a constant. So that is the operation, of any
    constant, and it "gives" the tensors. cut: leave out what the one tensor does not need. Raises
    ValueError for a tensor that is not in the file.
    """
    old = model.read_bytes()
    with path.open("wb") as file:
        file.write(_front(old, tensors, cut))
        file.write(old)


def write_cut(model: Path, tensor: str, path: Path) -> None:
    """Write what of the file gives `tensor`, its only output then, to `path`; see write_tapped."""
    write_tapped(model, [tensor], path, cut=True)


def _needed(operators: Sequence[Any], number: int) -> list[Any]:
    """Return the operators that the tensor of that number is made by."""
    ends = [
        [list(map(str, _numbers(o, n))) for n in (_OPERATOR_INPUTS, _OPERATOR_OUTPUTS)]
        for o in operators
    ]
    kept = needed_for(str(number), [(taken, given) for taken, given in ends])
    return [operator for place, operator in enumerate(operators) if place in kept]


def _front(old: bytes, names: Sequence[str], cut: bool) -> bytes:
    """Return the tables and vectors that stand before the file `old`.

    cut: leave out the operations that the one tensor of `names` does not need.
    A Builder counts offsets from its end, where `old` begins: what lies in `old` has negative ones.
    """
    # Imported by taps only: the environments of other OpenCVs may be without it.
    import numpy as np
    from flatbuffers import Builder
    from flatbuffers.table import Table

    model = Table(old, Table(old, 0).Indirect(0))
    codes, (graph,) = _tables(model, _CODES), _tables(model, _GRAPHS)
    tensors, buffers = _tables(graph, _TENSORS), _tables(model, _BUFFERS)
    number_of = {tensor.String(_at(tensor, _NAME)).decode(): n for n, tensor in enumerate(tensors)}
    unknown = [name for name in names if name not in number_of]
    if unknown:
        raise ValueError(f"the TFLite file has no tensor {unknown[0]!r}")
    constants = [n for n, tensor in enumerate(tensors) if _has_data(tensor, buffers)]
    constants.sort(key=lambda n: not _is_float(tensors[n]))
    if not constants:
        raise ValueError("the TFLite file has no constant")
    front = Builder(1 << 16)
    front.Prep(_ALIGNMENT, 0)
    ends = {_OPERATOR_INPUTS: constants[:1], _OPERATOR_OUTPUTS: [number_of[n] for n in names]}
    vectors = {n: front.CreateNumpyVector(np.array(end, np.int32)) for n, end in ends.items()}
    operator = _table(front, {_CODE: len(codes)}, vectors)
    kept_operators = _tables(graph, _OPERATORS)
    if cut:
        kept_operators = _needed(kept_operators, number_of[names[0]])
    operators = _references(front, [*(-o.Pos for o in kept_operators), operator])
    kept = {n: -graph.Indirect(_at(graph, n)) for n in (_TENSORS, _INPUTS, _OUTPUTS)}
    parts = {**kept, _OPERATORS: operators, _GRAPH_NAME: front.CreateString("main")}
    graphs = _references(front, [_table(front, {}, parts)])
    code = _table(front, dict.fromkeys((_OLD_BUILTIN, _BUILTIN), _DEQUANTIZE), {})
    all_codes = _references(front, [*(-c.Pos for c in codes), code])
    places = {_CODES: all_codes, _GRAPHS: graphs, _BUFFERS: -model.Indirect(_at(model, _BUFFERS))}
    front.Finish(_table(front, {_VERSION: _number(model, _VERSION)}, places), b"TFL3")
    return bytes(front.Output())


def _has_data(tensor: Any, buffers: list[Any]) -> bool:
    return bool(buffers[_number(tensor, _BUFFER)].Offset(_slot(_DATA)))


def _is_float(tensor: Any) -> bool:
    """Whether a tensor is of float32, which is 0."""
    kind = tensor.Offset(_slot(_TYPE))
    return not (kind and tensor.Bytes[tensor.Pos + kind])


def _slot(field: int) -> int:
    return 4 + 2 * field


def _at(table: Any, field: int) -> int:
    """Return where in the file a table's field is; raise ValueError where it has none."""
    offset = table.Offset(_slot(field))
    if not offset:
        raise ValueError(f"the TFLite file has a table without field {field}")
    return int(table.Pos + offset)


def _number(table: Any, field: int) -> int:
    from flatbuffers.number_types import Uint32Flags

    return int(table.GetSlot(_slot(field), 0, Uint32Flags))


def _numbers(table: Any, field: int) -> list[int]:
    """Return a vector of int32, empty where the table has none."""
    from flatbuffers.number_types import Int32Flags

    offset = table.Offset(_slot(field))
    if not offset:
        return []
    first = table.Vector(offset)
    return [int(table.Get(Int32Flags, first + 4 * n)) for n in range(table.VectorLen(offset))]


def _tables(table: Any, field: int) -> list[Any]:
    offset = _at(table, field) - table.Pos
    first, count = table.Vector(offset), table.VectorLen(offset)
    places = (table.Indirect(first + 4 * index) for index in range(count))
    return [type(table)(table.Bytes, place) for place in places]


def _table(front: Any, numbers: Mapping[int, int], references: Mapping[int, int]) -> int:
    """Add a table of numbers and references by field; return its offset."""
    front.StartObject(1 + max([*numbers, *references]))
    for field, number in numbers.items():
        front.PrependInt32Slot(field, number, 0)
    for field, offset in references.items():
        front.PrependUOffsetTRelativeSlot(field, offset, 0)
    return int(front.EndObject())


def _references(front: Any, offsets: Sequence[int]) -> int:
    """Add a vector of references; return its offset."""
    front.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        front.PrependUOffsetTRelative(offset)
    return int(front.EndVector())


read = partial(read_with, write_tapped)
