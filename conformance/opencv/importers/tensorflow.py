"""The frozen graph itself.

OpenCV names a layer after its graph node, with two exceptions that matter. It folds ``Mul`` +
``AddV2``, ``MatMul`` + ``BiasAdd`` and ``Conv2D`` + ``BiasAdd`` into one layer that bears the
first node's name and holds the second one's value. And it drops nodes that do nothing for it
(Identity, a Pad that the next convolution does itself, a shape computation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from conformance.pack.protobuf import fields, texts

from .converted import Entry, Tensor, needed_for

READER = "readNetFromTensorflow"
BEFORE_ENGINE: tuple[str, ...] = ("",)  # the file of a text graph
# tf_importer.cpp: parseConvolution, parseMatMul, parseMul, parseDepthwiseConv2dNative.
_NODE = 1  # field of GraphDef; a NodeDef has its name in 1 and its inputs in 3
_FOLDED_SECOND = ("Add", "AddV2", "BiasAdd")


def read(
    reader: Callable[..., Any], path: Path, engine: Sequence[int], extra: Sequence[str]
) -> Any:
    """Return the net."""
    # extraOutputs of the classic engine make layers outputs too, which changes fusion.
    return reader(str(path), *((*BEFORE_ENGINE, *engine, list(extra)) if engine else ()))


def write_cut(model: Path, node: str, path: Path) -> None:
    """Write what of the frozen graph gives `node`, its last one then, to `path`.

    Raises ValueError for a node that is not in the graph.
    """
    whole = memoryview(model.read_bytes())
    nodes = [payload for number, payload, _ in fields(whole) if number == _NODE]
    kept = needed_for(node, [(list(map(_source, texts(n, 3))), texts(n, 1)) for n in nodes])
    place = -1
    with path.open("wb") as file:
        for number, _, field in fields(whole):
            place += number == _NODE
            if number != _NODE or place in kept:
                file.write(field)


def _source(operand: str) -> str:
    """Return the node that an operand is of: "^node" is run before it, "node:1" another value."""
    return operand.lstrip("^").split(":")[0]


def carriers(
    names: Sequence[str],
    entries: Sequence[Entry],
    tensors: Sequence[Tensor] = (),
    engine: str = "classic",
) -> dict[str, str]:
    """Return {OpenCV layer: graph node whose value it holds}."""
    known = set(names)
    uses = Counter(name for entry in entries for name in set(entry["inputs"]))
    layer_of: dict[str, str] = {}
    held: dict[str, str] = {}
    for entry in entries:
        node = entry["node"]
        sources = [name for name in entry["inputs"] if name in layer_of]
        if node in known:
            layer_of[node] = node
            held[node] = node
        elif entry["op"] in _FOLDED_SECOND and len(sources) == 1 and uses[sources[0]] == 1:
            layer_of[node] = layer_of[sources[0]]
            held[layer_of[node]] = node
    return held


def absent(
    held: Mapping[str, str], entries: Sequence[Entry], tensors: Sequence[Tensor] = ()
) -> dict[str, str]:
    """Return {node: reason} of the nodes that no layer holds."""
    there = set(held.values())
    second_of = {layer: node for layer, node in held.items() if layer != node}
    reasons = {}
    for entry in entries:
        node, op = entry["node"], entry["op"]
        if node in there:
            continue
        folded = f"{op} is folded into {second_of[node]}" if node in second_of else ""
        reasons[node] = folded or f"OpenCV makes no layer of this {op}"
    return reasons
