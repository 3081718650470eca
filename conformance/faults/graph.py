"""Faults on purpose: one change to the graph that OpenCV gets (call.py: to the call).

The reference never sees them. A kind of fault is an entry of KINDS: where it can be made, and what
it does there. Everything is seeded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

import numpy as np
from ml_dtypes import bfloat16

from conformance.reference.graph import (
    FLOAT,
    INT32,
    Array,
    Graph,
    GraphDef,
    NodeDef,
    ancestors,
    constant,
    dependents,
    operation,
    reshape,
    sources,
)
from conformance.reference.graph.session import fetch, open_session

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
KERNELS = (*CONVOLUTIONS, "MatMul")
ADDITIONS = ("BiasAdd", "AddV2", "Add")
POOLS = {"MaxPool": "AvgPool", "AvgPool": "MaxPool"}
RELUS = {"Relu": "Relu6", "Relu6": "Relu"}


@dataclass(frozen=True)
class Site:
    """A node that a fault can be made at. constant: its constant operand, "" where it has none."""

    node: Any
    constant: str = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)


@dataclass(frozen=True)
class Kind:
    """A class of faults. sites: where the graph can have it. apply: the graph with it there."""

    sites: Callable[[Graph], list[Site]]
    apply: Callable[[Graph, Site, np.random.Generator], Graph]


@dataclass(frozen=True)
class Fault:
    """One fault of a graph. node: the changed node."""

    kind: str
    node: str
    graph: Graph


def with_value(graph: Graph, name: str, value: Array) -> Graph:
    """Return the graph with another value of a constant."""
    value = np.ascontiguousarray(value)
    if name in graph.constants:
        return replace(graph, constants={**graph.constants, name: value})
    return with_definition(graph, {name: [constant(name, value)]})


def with_definition(graph: Graph, changed: dict[str, list[Any]]) -> Graph:
    """Return the graph with the nodes of `changed` in the place of those of that name."""
    definition = GraphDef(versions=graph.definition.versions)
    for node in graph.definition.node:
        definition.node.extend(changed.get(node.name, [node]))
    return replace(graph, definition=definition)


def edited(node: Any, op: Optional[str] = None, **attributes: Any) -> Any:
    """Return a copy of `node` with another op or other attributes; None takes one away."""
    copy = NodeDef.FromString(node.SerializeToString())
    copy.op = op or copy.op
    for name, value in attributes.items():
        if name in copy.attr:
            del copy.attr[name]
        if isinstance(value, bytes):
            copy.attr[name].s = value
        elif value is not None:
            copy.attr[name].list.i.extend(value)
    return copy


def generator(*names: str) -> np.random.Generator:
    """Return the random numbers that belong to `names`."""
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def _sites(*ops: str, operand: bool = True) -> Callable[[Graph], list[Site]]:
    """Return a function that finds the nodes of `ops` with a float constant operand."""

    def find(graph: Graph) -> list[Site]:
        nodes, moving = graph.nodes(), dependents(graph)
        found = []
        for node in graph.definition.node:
            if node.op not in ops or node.name not in moving:
                continue
            fixed = [name for name in sources(node) if _is_float(nodes[name], moving)]
            if bool(fixed) == operand:
                found.append(Site(node, fixed[0] if fixed else ""))
        return found

    return find


def _is_float(node: Any, moving: set[str]) -> bool:
    return node.name not in moving and node.attr["dtype"].type == FLOAT


def _where(
    sites: Callable[[Graph], list[Site]], holds: Callable[[Graph, Site], bool]
) -> Callable[[Graph], list[Site]]:
    return lambda graph: [site for site in sites(graph) if holds(graph, site)]


def _scaled(by: float) -> Kind:
    def apply(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
        value = graph.value_of(site.constant)
        return with_value(graph, site.constant, value * np.float32(1 + by))

    return Kind(_sites(*KERNELS, *ADDITIONS, "Mul"), apply)


def _one_changed(change: Callable[[Any], Any]) -> Callable[..., Graph]:
    def apply(graph: Graph, site: Site, random: np.random.Generator) -> Graph:
        value = graph.value_of(site.constant).copy()
        at = int(random.integers(value.size))
        value.reshape(-1)[at] = change(value.reshape(-1)[at])
        return with_value(graph, site.constant, value)

    return apply


def _channels_swapped(graph: Graph, site: Site, random: np.random.Generator) -> Graph:
    value = graph.value_of(site.constant).copy()
    one, other = random.choice(value.shape[-2], 2, replace=False)
    value[..., [one, other], :] = value[..., [other, one], :]
    return with_value(graph, site.constant, value)


def _flipped(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    return with_value(graph, site.constant, graph.value_of(site.constant)[::-1, ::-1])


def _rounded(dtype: Any) -> Callable[..., Graph]:
    def apply(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
        value = graph.value_of(site.constant)
        return with_value(graph, site.constant, value.astype(dtype).astype(np.float32))

    return apply


def _other_op(pairs: dict[str, str]) -> Callable[..., Graph]:
    def apply(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
        swapped = edited(site.node, pairs[site.node.op], explicit_paddings=None)
        return with_definition(graph, {site.name: [swapped]})

    return apply


def _padding_mode(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    other = b"VALID" if site.node.attr["padding"].s == b"SAME" else b"SAME"
    return with_definition(graph, {site.name: [edited(site.node, padding=other)]})


def _spatial(site: Site, name: str) -> int:
    return int(site.node.attr[name].list.i[1])


def _window(graph: Graph, site: Site) -> int:
    """Return the height of the kernel or of the pooling window."""
    if site.constant:
        return int(graph.value_of(site.constant).shape[0])
    return _spatial(site, "ksize")


def _wide(graph: Graph, site: Site) -> bool:
    return site.node.op != "MatMul" and _window(graph, site) > 1


def _same_step_one(graph: Graph, site: Site) -> bool:
    padded = site.node.attr["padding"].s == b"SAME"
    return padded and _wide(graph, site) and _spatial(site, "strides") == 1


def _explicit(graph: Graph, site: Site, before: int, after: int) -> Graph:
    """Return the graph with an explicit Pad of zeros before the node, which becomes VALID."""
    name = f"{site.name}/fault"
    paddings = np.array([[0, 0], [before, after], [before, after], [0, 0]], np.int32)
    operands = [site.node.input[0], f"{name}/paddings"]
    pad = operation("Pad", name, operands, T=FLOAT, Tpaddings=INT32)
    node = edited(site.node, padding=b"VALID")
    node.input[0] = name
    return with_definition(graph, {site.name: [constant(f"{name}/paddings", paddings), pad, node]})


def _padding_shifted(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    if site.node.op == "Pad":
        name = site.node.input[1]
        paddings = graph.value_of(name).copy()
        step = 1 if paddings[1, 1] > 0 else -1
        paddings[1:3] += [step, -step]
        return with_definition(graph, _own_constant(site, 1, paddings))
    total = _window(graph, site) - 1
    return _explicit(graph, site, total // 2 + 1, total - total // 2 - 1)


def _own_constant(site: Site, operand: int, value: Array) -> dict[str, list[Any]]:
    """Give the node a constant of its own: others may share the one that it has."""
    node = edited(site.node)
    node.input[operand] = f"{site.name}/fault"
    return {site.name: [constant(node.input[operand], value), node]}


def _counting_padding(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    total = _window(graph, site) - 1
    return _explicit(graph, site, total // 2, total - total // 2)


def _stride(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    step = 1 if _spatial(site, "strides") > 1 else 2
    return with_definition(graph, {site.name: [edited(site.node, strides=[1, step, step, 1])]})


def _dilation(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    """Spread the kernel by zeros, which is what a dilation of 2 does.

    OpenCV does not read the attribute "dilations" of a graph: it would see no fault.
    """
    kernel = graph.value_of(site.constant)
    height, width = (2 * size - 1 for size in kernel.shape[:2])
    spread = np.zeros((height, width, *kernel.shape[2:]), np.float32)
    spread[::2, ::2] = kernel
    return with_value(graph, site.constant, spread)


def _undilated(graph: Graph, site: Site) -> bool:
    # Stride and dilation together are refused by TensorFlow itself.
    return _wide(graph, site) and _spatial(site, "strides") == 1


def _without_softmax(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    return with_definition(graph, {site.name: [edited(site.node, "Identity")]})


def _softmax_of_one(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    """Take the softmax over the batch instead of over the classes."""
    name = f"{site.name}/fault"
    classes = 1000
    one, whole = (np.array(shape, np.int32) for shape in ([-1, 1], [-1, classes]))
    nodes = [constant(f"{name}/one", one), constant(f"{name}/whole", whole)]
    column = reshape(f"{name}/column", site.node.input[0], f"{name}/one")
    softmax = NodeDef.FromString(site.node.SerializeToString())
    softmax.name, softmax.input[0] = f"{name}/softmax", column.name
    last = reshape(site.name, softmax.name, f"{name}/whole")
    return with_definition(graph, {site.name: [*nodes, column, softmax, last]})


def _exchanged(graph: Graph, site: Site, _: np.random.Generator) -> Graph:
    node = edited(site.node)
    node.input[0], node.input[1] = site.node.input[1], site.node.input[0]
    return with_definition(graph, {site.name: [node]})


_kernel_sites = _sites(*KERNELS)
_wide_sites = _where(_kernel_sites, _wide)
_windows = _where(
    lambda graph: _sites(*CONVOLUTIONS)(graph) + _sites(*POOLS, operand=False)(graph), _wide
)


def _shiftable(graph: Graph) -> list[Site]:
    convolutions = _where(_sites(*CONVOLUTIONS), _same_step_one)(graph)
    return convolutions + _sites("Pad", operand=False)(graph)


KINDS: dict[str, Kind] = {
    "constant x (1 + 1e-2)": _scaled(1e-2),
    "constant x (1 + 1e-3)": _scaled(1e-3),
    "constant x (1 + 1e-4)": _scaled(1e-4),
    "one weight negated": Kind(_kernel_sites, _one_changed(lambda weight: -weight)),
    "one bias zeroed": Kind(_sites(*ADDITIONS), _one_changed(lambda bias: 0)),
    "input channels swapped": Kind(
        _where(_kernel_sites, lambda g, s: g.value_of(s.constant).shape[-2] > 1), _channels_swapped
    ),
    "kernel flipped": Kind(_wide_sites, _flipped),
    "kernel in float16": Kind(_kernel_sites, _rounded(np.float16)),
    "kernel in bfloat16": Kind(_kernel_sites, _rounded(bfloat16)),
    "ReLU <-> ReLU6": Kind(_sites(*RELUS, operand=False), _other_op(RELUS)),
    "padding SAME <-> VALID": Kind(_windows, _padding_mode),
    "padding shifted by one": Kind(_shiftable, _padding_shifted),
    "stride 1 <-> 2": Kind(_windows, _stride),
    "dilation 1 -> 2": Kind(_where(_sites(*CONVOLUTIONS), _undilated), _dilation),
    "pooling max <-> average": Kind(_sites(*POOLS, operand=False), _other_op(POOLS)),
    "average counts the padding": Kind(
        _where(_sites("AvgPool", operand=False), _same_step_one), _counting_padding
    ),
    "softmax omitted": Kind(_sites("Softmax", operand=False), _without_softmax),
    "softmax along the batch": Kind(_sites("Softmax", operand=False), _softmax_of_one),
    "branches exchanged": Kind(_sites("AddV2", "ConcatV2", operand=False), _exchanged),
}
EPSILON = "batch norm epsilon"


def graph_faults(graph: Graph, model: str, a_kind: int) -> Iterator[Fault]:
    """Yield `a_kind` faults of each kind, fewer where the graph has fewer sites."""
    for name, kind in KINDS.items():
        sites = kind.sites(graph)
        random = generator(model, name)
        for index in random.permutation(len(sites))[:a_kind].tolist():
            site = sites[index]
            yield Fault(name, site.name, kind.apply(graph, site, random))


def epsilon_faults(graph: Graph, traced: Graph, model: str, a_kind: int) -> Iterator[Fault]:
    """Yield faults of a batch norm's epsilon, 1e-3 <-> 1e-5, as the folded constants have it.

    traced: the graph before constants were folded, which still has the epsilons.
    """
    before = traced.nodes()
    norms = [node for node in traced.definition.node if node.op == "Rsqrt"]
    random = generator(model, EPSILON)
    for index in random.permutation(len(norms))[:a_kind].tolist():
        addition = before[norms[index].input[0]]
        epsilon = next(name for name in sources(addition) if before[name].op == "Const")
        value = traced.value_of(epsilon)
        other = constant(epsilon, np.full(value.shape, 1e-5 if value > 1e-4 else 1e-3, np.float32))
        changed = with_definition(traced, {epsilon: [other]}).nodes()
        # What was folded: constants of the frozen graph that were computed in the traced one.
        folded = [
            name
            for name in graph.nodes()
            if name in before
            and before[name].op not in ("Const", "Placeholder")
            and name not in dependents(graph)
            and norms[index].name in ancestors(before, [name])
        ]
        needed = ancestors(before, folded)
        part = GraphDef(node=[node for name, node in changed.items() if name in needed])
        feeds = {name: kept for name, kept in traced.constants.items() if name in needed}
        with open_session(part) as session:
            values = fetch(session, feeds, folded)
        faulty = graph
        for name, folded_value in values.items():
            faulty = with_value(faulty, name, folded_value)
        yield Fault(EPSILON, _first_user(graph, folded), faulty)


def _first_user(graph: Graph, constants: list[str]) -> str:
    users = (str(n.name) for n in graph.definition.node if any(s in constants for s in sources(n)))
    return next(users)
