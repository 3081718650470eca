"""Common to the importers, most of it to those of a file converted from the frozen graph.

The tensors of such a file are known to equal nodes of the graph (pack/conversion.py); here they are
found again among OpenCV's layers. OpenCV 5's new engine hands out nothing but a model's outputs,
and the readers take no list of further ones: so the file is given more outputs. What is added
stands before or after the file's own bytes, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from conformance.processes.scratch import Scratch

Entry = Mapping[str, Any]
Tensor = Mapping[str, str]
# Writes the file with these tensors as outputs to another path.
WriteTapped = Callable[[Path, Sequence[str], Path], None]


def read_with(
    write_tapped: WriteTapped,
    reader: Callable[..., Any],
    path: Path,
    engine: Sequence[int],
    extra: Sequence[str],
) -> Any:
    """Return the net of the file, or of a copy with the tensors `extra` as outputs."""
    if not extra:
        return reader(str(path), *engine)
    with Scratch() as folder:
        tapped = Path(folder, path.name)
        write_tapped(path, extra, tapped)
        return reader(str(tapped), *engine)


def needed_for(wanted: str, operations: Sequence[tuple[Sequence[str], Sequence[str]]]) -> set[int]:
    """Return the places of the operations that the value `wanted` is made by.

    operations: the names of what each takes and gives. Raises ValueError where none gives `wanted`.
    """
    made = {name: at for at, (_, given) in enumerate(operations) for name in given}
    if wanted not in made:
        raise ValueError(f"no operation of the file gives {wanted!r}")
    found: set[int] = set()
    pending = [wanted]
    while pending:
        at = made.get(pending.pop())
        if at is not None and at not in found:
            found.add(at)
            pending += operations[at][0]
    return found


def carriers_by(
    layers_of: Callable[[Tensor], Sequence[str]],
    names: Sequence[str],
    tensors: Sequence[Tensor],
    engine: str,
) -> dict[str, str]:
    """Return the carriers; `layers_of` gives the names that a tensor's layer may have, best first.

    On the new engine the keys are the file's tensors: what it hands out goes by them.
    """
    if engine == "new":
        return {entry["tensor"]: entry["node"] for entry in tensors}
    known = set(names)
    found = (([n for n in layers_of(entry) if n in known], entry["node"]) for entry in tensors)
    return {layers[0]: node for layers, node in found if layers}


def absent(
    held: Mapping[str, str], entries: Sequence[Entry], tensors: Sequence[Tensor]
) -> dict[str, str]:
    """Return {node: reason} of the nodes that no layer holds.

    Most have no tensor in the file: the converter folded them. One that has is lost in OpenCV,
    unless all that is made of it comes to one node that has a layer, which stands for both.
    """
    there, converted = set(held.values()), {entry["node"] for entry in tensors}
    users: dict[str, list[str]] = {}
    for entry in entries:
        for name in set(entry["inputs"]):
            users.setdefault(name, []).append(entry["node"])
    # By node, the nearest ones after it that have a layer; None for an end without one.
    after: dict[str, set[Optional[str]]] = {}
    for entry in reversed(entries):
        node = entry["node"]
        further = (after[user] for user in users.get(node, ()) if user in after)
        after[node] = {node} if node in there else set().union(*further) or {None}
    reasons = {}
    for node, op in ((entry["node"], entry["op"]) for entry in entries):
        if node in there:
            continue
        (holder, *others) = after[node]
        if node not in converted:
            reasons[node] = f"{op} is folded into another operation of the file"
        elif holder is not None and not others:
            reasons[node] = f"{op} is folded into {holder}"
        else:
            reasons[node] = f"OpenCV makes no layer of this {op}"
    return reasons
