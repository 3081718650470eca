"""Graph passes: each one is applied only where its check finds the pattern that needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from conformance.reference.graph import (
    Graph,
    NodeDef,
    ancestors,
    constant,
    constant_value,
    is_control,
    placeholder,
    source,
    sources,
    with_nodes,
)

from .rewrites import REWRITES, rewrite
from .session import fetch, open_session


@dataclass(frozen=True)
class AppliedPass:
    """A pass that changed the graph: its name, the pattern it found, how many nodes had it."""

    name: str
    found: str
    nodes: int


@dataclass(frozen=True)
class _Pass:
    """detect: names of the nodes that have the pattern. apply: the graph without it."""

    found: str
    detect: Callable[[Graph], list[str]]
    apply: Callable[[Graph, list[str]], Graph]


def apply_passes(graph: Graph, rewritten: bool = False) -> tuple[Graph, list[AppliedPass]]:
    """Return the graph after all passes, in order, and those that found something to do.

    A pass keeps name and value of every node it leaves, so that a node of the new graph which
    depends on the input is found in the old one. rewritten: put what OpenCV fails at in other words
    too, see rewrites.py.
    """
    applied = []
    for step in PASSES:
        nodes = step.detect(graph)
        if nodes:
            graph = step.apply(graph, nodes)
            applied.append(AppliedPass(step.apply.__name__, step.found, len(nodes)))
    for change in REWRITES if rewritten else ():
        graph, places = rewrite(graph, change)
        if places:
            applied.append(AppliedPass(change.name, change.found, places))
    return graph, applied


def _computed_constants(graph: Graph) -> list[str]:
    """Names of the operations all of whose inputs are constant, or computed from constants."""
    known = set(graph.constants)
    computed = []
    for node in graph.definition.node:
        if node.op == "Const":
            known.add(node.name)
        elif node.input and all(name in known for name in sources(node)):
            known.add(node.name)
            computed.append(node.name)
    return computed


def fold_constants(graph: Graph, computed: list[str]) -> Graph:
    """Replace what is computed from constants by its value, as TensorFlow computes it."""
    nodes = graph.nodes()
    inside = set(computed)
    used = {name for node in nodes.values() if node.name not in inside for name in sources(node)}
    frontier = [name for name in computed if name in used]
    needed = ancestors(nodes, frontier)
    subgraph = tf.compat.v1.GraphDef(node=[nodes[name] for name in nodes if name in needed])
    feeds = {name: value for name, value in graph.constants.items() if name in needed}
    with open_session(subgraph) as session:
        constants = {**graph.constants, **fetch(session, feeds, frontier)}
    for name in frontier:
        nodes[name] = placeholder(name, constants[name].dtype, constants[name].shape)
    return with_nodes(graph, nodes.values(), constants)


def _unused(graph: Graph) -> list[str]:
    """Names of the nodes whose values the output does not depend on."""
    nodes = graph.nodes()
    needed = ancestors(nodes, graph.results())
    return [name for name in nodes if name not in needed]


def keep_only_result(graph: Graph, _unused: list[str]) -> Graph:
    """Drop what the output does not depend on, and every control input."""
    return with_nodes(graph, graph.nodes().values(), graph.constants)


# Where a TensorProto holds its values if not in tensor_content; a list shorter than the tensor
# means that the last value is repeated (tensor.proto).
_VALUES = ("float_val", "int_val", "int64_val", "double_val", "bool_val", "half_val")


def _compressed(graph: Graph) -> list[str]:
    """Names of the constants that hold fewer values than their shape has."""
    return [node.name for node in graph.definition.node if node.op == "Const" and _is_short(node)]


def _is_short(node: Any) -> bool:
    tensor = node.attr["value"].tensor
    stored = max(len(getattr(tensor, name)) for name in _VALUES)
    size = tf.TensorShape(tensor.tensor_shape).num_elements()
    return not tensor.tensor_content and not tensor.string_val and stored < (size or 0)


def expand_constants(graph: Graph, compressed: list[str]) -> Graph:
    """Write out the constants of which a value is held once for many."""
    names = set(compressed)
    nodes = [
        constant(node.name, constant_value(node)) if node.name in names else node
        for node in graph.definition.node
    ]
    return with_nodes(graph, nodes, graph.constants)


def _identities(graph: Graph) -> list[str]:
    """Names of the IdentityN nodes, in which Keras wraps a swish for the sake of its gradient."""
    return [node.name for node in graph.definition.node if node.op == "IdentityN"]


def bypass_identities(graph: Graph, names: list[str]) -> Graph:
    """Let whoever takes an output of an IdentityN take its input instead."""
    passed = {name: list(graph.nodes()[name].input) for name in names}
    nodes = []
    for node in graph.definition.node:
        if node.name not in passed:
            changed = NodeDef.FromString(node.SerializeToString())
            changed.input[:] = [_behind(reference, passed) for reference in node.input]
            nodes.append(changed)
    return with_nodes(graph, nodes, graph.constants)


def _behind(reference: str, passed: dict[str, list[str]]) -> str:
    """Return what `reference`, such as "a" or "a:1", is once the nodes `passed` are gone."""
    while source(reference) in passed and not is_control(reference):
        name, _, index = reference.partition(":")
        reference = passed[name][int(index or 0)]
    return reference


PASSES = (
    _Pass(
        "IdentityN, in which Keras wraps a swish for its gradient, and which OpenCV can't read",
        _identities,
        bypass_identities,
    ),
    _Pass(
        "nodes that the result does not depend on, such as those that order variable reads",
        _unused,
        keep_only_result,
    ),
    _Pass(
        "operations on constants alone, which OpenCV's importer computes in few subgraphs only",
        _computed_constants,
        fold_constants,
    ),
    _Pass(
        "constants that hold a value once for many, which OpenCV's importer reads as they are held",
        _compressed,
        expand_constants,
    ),
)
