"""Nodes read one at a time: what stands before a node is then fused as in the user's network.

Reading all layers at once makes each an output, so that OpenCV fuses nothing across it, and what
goes wrong in a fused layer vanishes. A network cut after one node, by making that one the only
further output, keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from conformance.candidate import CandidateRun
from conformance.pack.format import Pack
from conformance.session import Session
from conformance.verdict.nodes import NodeDeviation, held_sources

# Cuts in one process: each reads the file and runs the network again.
_CUTS = 8
# A softmax is judged by logits that were read with it.
_NOT_ALONE = ("Softmax",)


@dataclass(frozen=True)
class Fused:
    """The first node that strays where the network is cut after it.

    before: the nearest nodes in front of it, after which it can be cut and does not stray.
    """

    node: NodeDeviation
    before: list[str]

    def __str__(self) -> str:
        node, before = self.node, " and ".join(map(repr, self.before))
        told = (
            f"cut after {node.node!r}, {node.op}, and fused as in the whole network: strays by "
            f"{node.observed:.3g} (root mean square), allowed {node.allowed:.3g}"
        )
        if not before:
            return told
        return f"{told}; cut after {before} it does not: OpenCV fuses {before} with {node.node!r}"


def first_fused(session: Session, pack: Pack, run: CandidateRun) -> Optional[Fused]:
    """Return the first node that strays when it alone is read, None if none does.

    run: one that read all layers, in which none strays.
    """
    order = [
        layer["node"]
        for layer in pack.manifest.layers
        if layer["node"] in run.layer_samples and layer["op"] not in _NOT_ALONE
    ]
    narrow = necks(pack.manifest.layers, order)
    good, bad = -1, len(narrow)
    while bad - good > 1:
        tried = _spread(good + 1, bad)
        found = _first_bad(session, pack, run, [narrow[at] for at in tried])
        worse = narrow.index(found.node) if found else bad
        good = max([good, *(at for at in tried if at < worse)])
        bad = worse
    first = order.index(narrow[good]) + 1 if good >= 0 else 0
    last = order.index(narrow[bad]) + 1 if bad < len(narrow) else len(order)
    node = _first_bad(session, pack, run, order[first:last])
    if node is None:
        return None
    every = {other.node: other for other in session.limits.profile(pack, run)}
    return Fused(node, held_sources(node, every))


def necks(entries: Sequence[dict[str, Any]], among: Sequence[str]) -> list[str]:
    """Return the nodes of `among`, in order, that all values of the network go through.

    entries: the pack's layers, in topological order.
    """
    place = {entry["node"]: at for at, entry in enumerate(entries)}
    last = list(range(len(entries)))  # where each node's value is used last
    for at, entry in enumerate(entries):
        for name in entry["inputs"]:
            if name in place:
                last[place[name]] = at
    found, reached = [], 0
    for at, entry in enumerate(entries):
        # Whatever came before it is used by it at the latest.
        if reached <= at and entry["node"] in among:
            found.append(entry["node"])
        reached = max(reached, last[at])
    return found


def _spread(first: int, end: int) -> list[int]:
    """Return at most _CUTS numbers from `first` to below `end`, evenly spread."""
    step = max(1, -(-(end - first) // _CUTS))
    return list(range(first + (step - 1) // 2, end, step))


def _first_bad(
    session: Session, pack: Pack, run: CandidateRun, nodes: Sequence[str]
) -> Optional[NodeDeviation]:
    alone = session.run(pack, replace(run.config, cut=tuple(nodes)))
    profile = session.limits.profile(pack, alone) if alone.layer_samples else []
    read = (node for node in profile if node.node in nodes and node.observed is not None)
    return next((node for node in read if node.bad), None)
