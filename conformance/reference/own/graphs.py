"""Frozen graphs of others, from TensorFlow 1 or 2: read, checked, their input and outputs found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

import tensorflow as tf

from conformance.errors import ConformanceError, first_line
from conformance.reference.graph import GraphDef, ancestors, is_control, operation, source

_VARIABLES = (
    *("Variable", "VariableV2", "AutoReloadVariable", "TemporaryVariable"),
    *("VarHandleOp", "ReadVariableOp", "VarIsInitializedOp"),
)
_IDLE = ("Const", "NoOp", "Assert", "Placeholder", "PlaceholderWithDefault")
_FREEZE = (
    "freeze it first: tf.compat.v1.graph_util.convert_variables_to_constants (TensorFlow 1) or "
    "convert_variables_to_constants_v2"
)


def read_definition(path: Path) -> Any:
    """Return the GraphDef at `path`, a PlaceholderWithDefault replaced by its default.

    Raises ConformanceError, naming the file, for one that is no binary GraphDef, holds variables
    (a training graph) or calls functions.
    """
    try:
        definition = GraphDef.FromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, which differs between its back ends
        raise ConformanceError(f"{path} is no GraphDef ({error}): give a frozen graph") from error
    if not definition.node or not all(node.name and node.op for node in definition.node):
        raise ConformanceError(
            f"{path} is no GraphDef: it has no nodes; give a frozen graph, binary, not .pbtxt"
        )
    _refuse_variables(path, definition)
    if definition.library.function:
        called = definition.library.function[0].signature.name
        raise ConformanceError(f"{path} calls functions, such as {called!r}: {_FREEZE}")
    for node in definition.node:
        if node.op == "PlaceholderWithDefault":
            dtype = node.attr["dtype"].type
            node.CopyFrom(operation("Identity", node.name, node.input, T=dtype))
    return definition


def _refuse_variables(path: Path, definition: Any) -> None:
    found = [node.name for node in definition.node if node.op in _VARIABLES]
    if found:
        raise ConformanceError(
            f"{path} is a training graph with variables that aren't frozen ({len(found)}, such as "
            f"{found[0]!r}): {_FREEZE}"
        )


def import_graph(definition: Any) -> Any:
    """Return `definition` as a tf.Graph; raise ConformanceError where TensorFlow refuses it."""
    with tf.Graph().as_default() as graph:
        try:
            tf.import_graph_def(definition, name="")
        except ValueError as error:
            raise ConformanceError(
                f"TensorFlow can't read the graph: {first_line(error)}"
            ) from error
    return graph


def find_outputs(definition: Any, named: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return {name: node} of the graph's outputs, and notes on those that are left out.

    named: the nodes that are to be its outputs; where none are named, those that nothing takes and
    that give float32. Raises ConformanceError where there is none.
    """
    nodes = {node.name: node for node in definition.node}
    unknown = [name for name in named if source(name) not in nodes]
    if unknown:
        raise ConformanceError(
            f"the graph has no node {unknown[0]!r}; nothing takes {', '.join(_leaves(nodes)[:10])}"
        )
    if named:
        return {name: source(name) for name in named}, []
    graph = import_graph(definition)
    outputs, notes = {}, []
    for name in _leaves(nodes):
        dtype = graph.get_operation_by_name(name).outputs[0].dtype
        if dtype == tf.float32:
            outputs[name] = name
        else:
            notes.append(f"output {name!r} is {dtype.name}: not judged")
    if not outputs:
        raise ConformanceError("the graph has no output: no float32 node that nothing else takes")
    return outputs, notes


def _leaves(nodes: dict[str, Any]) -> list[str]:
    taken = {source(name) for node in nodes.values() for name in node.input if not is_control(name)}
    return [name for name, node in nodes.items() if name not in taken and node.op not in _IDLE]


def checked_input(definition: Any, outputs: Iterable[str]) -> tuple[str, list[Optional[int]]]:
    """Return the graph's one Placeholder and its shape, None for what is not known.

    Raises ConformanceError where the outputs depend on none or several, or on one that is no
    float32 image.
    """
    nodes = {node.name: node for node in definition.node}
    needed = ancestors(nodes, outputs)
    found = [
        n for name, n in nodes.items() if n.op in ("Placeholder", "PlaceholderV2") if name in needed
    ]
    if len(found) != 1:
        listed = ", ".join(f"{n.name!r} ({_dtype(n).name})" for n in found)
        raise ConformanceError(
            f"the graph has {len(found) or 'no'} placeholders ({listed}): expected one, the images"
            if found
            else "the graph has no placeholder that its output depends on: expected one, the images"
        )
    (node,) = found
    shape = (
        tf.TensorShape(node.attr["shape"].shape) if "shape" in node.attr else tf.TensorShape(None)
    )
    if _dtype(node) != tf.float32 or shape.rank not in (None, 4):
        raise ConformanceError(
            f"placeholder {node.name!r} is {_dtype(node).name} {shape}: expected float32, NHWC"
        )
    return node.name, shape.as_list() if shape.rank else [None, None, None, 3]


def _dtype(node: Any) -> Any:
    return tf.as_dtype(node.attr["dtype"].type)
