"""What the layers of a net are called that was read from a TFLite or an ONNX file. No cv2 here.

The tensors of such a file are known to equal nodes of the frozen graph (conversion.py); here they
are found again among OpenCV's layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

Entry = Mapping[str, Any]
Tensor = Mapping[str, str]

# Of a fused activation the TFLite importer makes a layer of its own (tflite_importer.cpp,
# parseFusedActivation); the one before it bears the tensor's name and holds what goes into it.
_ACTIVATION = "/activ"
_ACTIVATIONS = ("Relu", "Relu6")
# onnx_importer.cpp, extractNodeName: since 4.5.5 the operation's name, before the tensor's.
_ONNX_PREFIXES = ("onnx_node!", "")


def converted_carriers(
    importer: str,
    engine: str,
    names: Sequence[str],
    tensors: Sequence[Tensor],
    entries: Sequence[Entry],
) -> dict[str, str]:
    """Return {OpenCV layer: graph node whose value it holds}, as layers.carriers does.

    names: from ``net.getLayerNames()``. tensors: of the conversion's manifest. On the new engine
    the keys are the file's tensors: what it hands out goes by them.
    """
    if engine == "new":
        return {entry["tensor"]: entry["node"] for entry in tensors}
    known = set(names)
    find = _tflite_layer if importer == "tflite" else _onnx_layer
    held: dict[str, str] = {}
    for entry in tensors:
        layer = find(entry, known)
        if layer is not None:
            held[layer] = entry["node"]
    return {**_before_activations(held, known, entries), **held}


def _tflite_layer(entry: Tensor, known: set[str]) -> Optional[str]:
    activated = entry["tensor"] + _ACTIVATION
    return next((name for name in (activated, entry["tensor"]) if name in known), None)


def _onnx_layer(entry: Tensor, known: set[str]) -> Optional[str]:
    candidates = [prefix + entry["layer"] for prefix in _ONNX_PREFIXES] + [entry["tensor"]]
    return next((name for name in candidates if name in known), None)


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


def converted_absent(
    held: Mapping[str, str], tensors: Sequence[Tensor], entries: Sequence[Entry]
) -> dict[str, str]:
    """Return {node: reason} of the pack's nodes that no OpenCV layer holds.

    Most have no tensor in the file: the converter folded them. One that has is lost in OpenCV,
    unless the node after it, its only user, has a layer that stands for both.
    """
    there, converted = set(held.values()), {entry["node"] for entry in tensors}
    users: dict[str, list[str]] = {}
    for entry in entries:
        for name in set(entry["inputs"]):
            users.setdefault(name, []).append(entry["node"])
    reasons = {}
    for node, op in ((entry["node"], entry["op"]) for entry in entries):
        if node in there:
            continue
        after = users.get(node, [])
        if node not in converted:
            reasons[node] = f"{op} is folded into another operation of the file"
        elif len(after) == 1 and after[0] in there:
            reasons[node] = f"{op} is folded into {after[0]}"
        else:
            reasons[node] = f"OpenCV makes no layer of this {op}"
    return reasons
