"""The part of a frozen graph around one node, as a small graph with its input and its truth."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from conformance.errors import ConformanceError

from .formats import convert
from .graph import (
    Array,
    Graph,
    GraphDef,
    NodeDef,
    ancestors,
    constant,
    dependents,
    placeholder,
    read_graph,
    sources,
    with_nodes,
    write_graph,
)
from .graph.precision import promoted
from .graph.session import fetch, open_session

INPUT = "input"


@dataclass(frozen=True)
class Part:
    """A subgraph with one input and one output, and its values on one image.

    nodes: how many operations. input: float32 NHWC [1, ...]. expected: float64 [1, ...], the
    subgraph's own answer to that input, computed in double precision. single: the same in
    TensorFlow's float32.
    """

    graph: Graph
    nodes: int
    input: Array
    expected: Array
    single: Array


def parts_around(
    graph_path: Path,
    tensors: dict[str, str],
    node: str,
    last: str,
    image: Array,
    starts: Optional[Container[str]] = None,
) -> Iterator[Part]:
    """Yield ever larger parts of the frozen graph that end in `last` and hold `node`.

    The first begins at the node itself; each next one at a node farther up through which all
    values pass; the last is the whole graph up to `last`. image: float32 NHWC [1, H, W, 3]. starts:
    the nodes that a part may begin at, None for all: a converter makes other operations of a part
    that begins inside what it folds.
    """
    graph = read_graph(graph_path, tensors)
    moving = dependents(graph)
    for start in _narrow_places(graph, moving, node, last, starts):
        yield _part(graph, moving, start, last, image)


def node_that_uses(
    graph_path: Path, tensors: dict[str, str], node: str
) -> Optional[tuple[str, str]]:
    """Return name and op of the first node on the way from the input that depends on `node`.

    That is `node` itself where it depends on the input; None where the graph has no such node.
    """
    graph = read_graph(graph_path, tensors)
    nodes, moving = graph.nodes(), dependents(graph)
    reached = {node}
    for name, definition in nodes.items():
        if name in reached or reached & set(sources(definition)):
            reached.add(name)
            if name in moving:
                return name, str(definition.op)
    return None


def _narrow_places(
    graph: Graph, moving: set[str], node: str, last: str, starts: Optional[Container[str]] = None
) -> list[str]:
    """Return the nodes, nearest first, that alone carry what `node` and `last` depend on."""
    nodes = graph.nodes()
    if node not in nodes or last not in nodes:
        raise ConformanceError(f"the frozen graph has no node {node!r}: it can't be reduced")
    places = []
    order = [name for name in nodes if name in moving]
    at = order.index(node)
    for position in range(at - 1, -1, -1):
        inside = set(order[position + 1 : order.index(last) + 1])
        needed = _needed(nodes, moving, last, order[position])
        allowed = starts is None or order[position] in starts or order[position] == graph.input
        if allowed and needed <= inside | {order[position]} and node in needed:
            places.append(order[position])
    # Each step about doubles the part, so that the smallest that shows the fault is soon found.
    picked = [places[index] for index in _doubling(len(places))]
    return picked or [graph.input]


def _doubling(count: int) -> list[int]:
    steps = [2**power - 1 for power in range(count.bit_length()) if 2**power - 1 < count]
    return sorted({*steps, count - 1} if count else set())


def _needed(nodes: dict[str, Any], moving: set[str], last: str, start: str) -> set[str]:
    """Return the moving nodes that `last` depends on, not going past `start`."""
    return moving & ancestors(nodes, [last], {start})


def _part(graph: Graph, moving: set[str], start: str, last: str, image: Array) -> Part:
    value = _value(graph, {graph.input: image}, start)
    small = cut(graph, start, last, value)
    expected = _value(promoted(small), {INPUT: value.astype(np.float64)}, last)
    single = _value(small, {INPUT: value}, last)
    count = len(_needed(graph.nodes(), moving, last, start)) - 1
    return Part(small, count, value, expected, single)


def cut(graph: Graph, start: str, last: str, value: Array) -> Graph:
    """Return the graph from `start`, a Placeholder named INPUT shaped as `value`, to `last`."""
    renamed = []
    for name, node in graph.nodes().items():
        if name == start:
            renamed.append(placeholder(INPUT, np.float32, [None, *value.shape[1:]]))
            continue
        if name == INPUT:
            continue  # the whole graph's own input, which lies before the start
        copy = NodeDef.FromString(node.SerializeToString())
        fed = [INPUT if source == start else source for source in sources(node)]
        copy.ClearField("input")
        copy.input.extend(fed)
        renamed.append(copy)
    part = replace(graph, input=INPUT, logits=last, output=last, heads=())
    return with_nodes(part, renamed, graph.constants)


def _value(graph: Graph, feeds: dict[str, Array], node: str) -> Array:
    with open_session(graph.definition) as session:
        return np.asarray(fetch(session, {**graph.constants, **feeds}, [node])[node])


def write_part(file: Path, part: Part, importer: str = "tensorflow") -> bool:
    """Write the graph to `file`, input.npy (NHWC) and expected.npy (NHWC, float64) beside it.

    importer: what the file is for. Return False, nothing written, for a part that its converter
    refuses.
    """
    try:
        if importer == "tensorflow":
            write_graph(file, part.graph)
        else:
            convert(importer, part.graph, list(part.input.shape[1:]), file)
    except ConformanceError:
        return False
    np.save(file.with_name("input.npy"), part.input)
    np.save(file.with_name("expected.npy"), part.expected)
    return True


def fewer_channels(part: Part, keep: int, at: int) -> Part:
    """Return the part with only `keep` output channels of its one kernel, around channel `at`.

    A kernel of many megabytes is most often wrong in each of its channels.

    Raises ConformanceError where the part has more than one kernel or its operations after it mix
    channels, so that nothing can be left out.
    """
    nodes = part.graph.nodes()
    kernels = [n for n in part.graph.constants if part.graph.constants[n].ndim in (2, 4)]
    mixing = {"Conv2D", "MatMul"}
    ops = [node.op for node in nodes.values()]
    if len(kernels) != 1 or sum(op in mixing for op in ops) != 1 or "Mean" in ops:
        raise ConformanceError("channels can't be left out of this part of the graph")
    channels = part.expected.shape[-1]
    first = max(0, min(at - keep // 2, channels - keep))
    few = slice(first, first + keep)
    constants = {
        name: np.ascontiguousarray(value[..., few]) if value.shape[-1:] == (channels,) else value
        for name, value in part.graph.constants.items()
    }
    definition = GraphDef(versions=part.graph.definition.versions)
    for node in nodes.values():
        definition.node.append(_with_channels(node, constants, channels, few))
    graph = Graph(definition, constants, INPUT, part.graph.logits, part.graph.output)
    expected, single = (np.ascontiguousarray(v[..., few]) for v in (part.expected, part.single))
    return Part(graph, part.nodes, part.input, expected, single)


def _with_channels(node: Any, constants: dict[str, Array], channels: int, few: slice) -> Any:
    if node.name in constants:
        value = constants[node.name]
        return placeholder(node.name, value.dtype, value.shape)
    if node.op != "Const":
        return node
    value = tf.make_ndarray(node.attr["value"].tensor)
    if value.dtype != np.float32 or value.shape[-1:] != (channels,):
        return node
    return constant(node.name, np.ascontiguousarray(value[..., few]))
