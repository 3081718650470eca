"""A TensorFlow graph whose large constants live beside it, and its way to disk and back."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, BinaryIO, Optional

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from conformance.errors import ConformanceError
from conformance.pack.heads import Head as Head
from conformance.pack.heads import heads_of as heads_of
from conformance.pack.protobuf import message_field, tag, varint

Array = NDArray[Any]
GraphDef = tf.compat.v1.GraphDef
NodeDef = tf.compat.v1.NodeDef

FLOAT, DOUBLE = tf.float32.as_datatype_enum, tf.float64.as_datatype_enum
INT32, INT64 = tf.int32.as_datatype_enum, tf.int64.as_datatype_enum

# Constants of more bytes than this are kept out of the protobuf messages (read_graph).
LARGE = 4096


@dataclass(frozen=True)
class Graph:
    """A classifier as a GraphDef, with the values of its constants outside the message.

    definition: nodes in topological order. constants: {node: value}; such a node is a Placeholder
    in `definition`, to be fed when the graph runs and to become a Const when it is written. The
    arrays may be views of a model's variables: nothing is copied until the file is written.
    input: Placeholder of the images, float32 NHWC [N,H,W,3]. logits: [N,C], before the softmax.
    output: [N,C]. heads: all outputs, `output` the first; empty for one softmax output. All names
    without ":0".
    """

    definition: Any
    constants: dict[str, Array] = field(repr=False)
    input: str
    logits: str
    output: str
    heads: tuple[Head, ...] = ()

    def results(self) -> list[str]:
        """Return the nodes whose values are asked for, without repetition, `output` first."""
        return list(dict.fromkeys([self.output, self.logits, *results_of(self.heads)]))

    def outputs(self) -> list[str]:
        """Return the nodes that are the graph's outputs, `output` first."""
        return [head.output for head in self.heads] or [self.output]

    @cached_property
    def values(self) -> dict[str, tf.TensorSpec]:
        """{node: dtype and shape of its first value, as TensorFlow infers them}, worked out once.

        A node whose rank TensorFlow can't tell before it runs is left out.
        """
        with tf.Graph().as_default() as inferred:
            tf.import_graph_def(self.definition, name="")
        known = {op.name: op.outputs[0] for op in inferred.get_operations() if op.outputs}
        return {
            name: tf.TensorSpec(value.shape, value.dtype)
            for name, value in known.items()
            if value.shape.rank is not None
        }

    def nodes(self) -> dict[str, Any]:
        """Return {name: NodeDef}."""
        return {node.name: node for node in self.definition.node}

    def value_of(self, name: str) -> Array:
        """Return the value of a constant, wherever the graph keeps it."""
        kept = self.constants.get(name)
        return constant_value(self.nodes()[name]) if kept is None else kept


def results_of(heads: Iterable[Head]) -> list[str]:
    """Return the nodes of the heads' outputs and logits, each once, in the heads' order."""
    return list(dict.fromkeys(name for head in heads for name in (head.output, head.logits)))


def source(reference: str) -> str:
    """Return the node an input refers to: "a" for "a", "a:1" and "^a"."""
    return reference.lstrip("^").split(":")[0]


def is_control(reference: str) -> bool:
    """Whether an input only orders execution."""
    return reference.startswith("^")


def sources(node: Any) -> list[str]:
    """Return the nodes whose values `node` takes, control inputs left out."""
    return [source(name) for name in node.input if not is_control(name)]


def ancestors(nodes: dict[str, Any], targets: Iterable[str], ends: Container[str] = ()) -> set[str]:
    """Return the names of `targets` and of all nodes they depend on, not going past `ends`."""
    found: set[str] = set()
    pending = list(targets)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(() if name in ends else sources(nodes[name]))
    return found


def dependents(graph: Graph) -> set[str]:
    """Return the names of the nodes whose value depends on the graph's input."""
    found = {graph.input}
    for node in graph.definition.node:
        if any(name in found for name in sources(node)):
            found.add(node.name)
    return found


def with_nodes(graph: Graph, nodes: Iterable[Any], constants: dict[str, Array]) -> Graph:
    """Return `graph` made of `nodes`, less what its outputs do not depend on.

    Control inputs go: in a graph without variables nothing has to be ordered.
    """
    by_name = {node.name: node for node in nodes}
    needed = ancestors(by_name, [*graph.results(), graph.input])
    definition = GraphDef(versions=graph.definition.versions)
    for name, node in by_name.items():
        if name in needed:
            kept = definition.node.add()
            kept.CopyFrom(node)
            kept.ClearField("input")
            kept.input.extend(i for i in node.input if not is_control(i))
    kept_constants = {name: value for name, value in constants.items() if name in needed}
    return replace(graph, definition=definition, constants=kept_constants)


def placeholder(name: str, dtype: Any, shape: Optional[Iterable[Optional[int]]]) -> Any:
    """Return a Placeholder NodeDef; None in `shape` is an unknown dimension."""
    node = operation("Placeholder", name, (), dtype=tf.as_dtype(dtype).as_datatype_enum)
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return node


def operation(op: str, name: str, inputs: Iterable[str], **types: int) -> Any:
    """Return a NodeDef; types: its attributes that are types, such as T."""
    node = NodeDef(name=name, op=op, input=inputs)
    for attribute, dtype in types.items():
        node.attr[attribute].type = dtype
    return node


def reshape(name: str, source: str, shape: str, dtype: int = FLOAT) -> Any:
    """Return a Reshape NodeDef; shape: the node that says it, in int32."""
    return operation("Reshape", name, [source, shape], T=dtype, Tshape=INT32)


def constant(name: str, value: Array) -> Any:
    """Return a Const NodeDef that holds `value` as tensor_content, never compressed."""
    node = _const_head(name, value)
    node.attr["value"].tensor.tensor_content = value.tobytes()
    return node


def constant_value(node: Any) -> Array:
    """Return the value of a Const NodeDef."""
    return np.asarray(tf.make_ndarray(node.attr["value"].tensor))


def _const_head(name: str, value: Array) -> Any:
    dtype = tf.as_dtype(value.dtype).as_datatype_enum
    node = operation("Const", name, (), dtype=dtype)
    node.attr["value"].tensor.dtype = dtype
    node.attr["value"].tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return node


def write_graph(path: Path, graph: Graph) -> None:
    """Write `graph` to `path` as a binary GraphDef with its constants embedded, node by node.

    A GraphDef is a message with a repeated field of nodes, so that the concatenation of its
    serialised nodes is the file, and a NodeDef may likewise be continued: the bytes of a constant
    go straight from its array to the file. Raises OSError when the file can't be written.
    """
    with path.open("wb") as file:
        for node in graph.definition.node:
            if node.name in graph.constants:
                _write_constant(file, node.name, graph.constants[node.name])
            else:
                file.write(message_field(1, node.SerializeToString(deterministic=True)))
        file.write(message_field(4, graph.definition.versions.SerializeToString()))


def embedded(graph: Graph) -> Any:
    """Return `graph` as one GraphDef message with its constants in it; they are copied."""
    definition = GraphDef(versions=graph.definition.versions)
    for node in graph.definition.node:
        value = graph.constants.get(node.name)
        definition.node.append(node if value is None else constant(node.name, value))
    return definition


def _write_constant(file: BinaryIO, name: str, value: Array) -> None:
    """Write a Const node: GraphDef.node(1) > attr(5) > value(2) > tensor(8) > tensor_content(4)."""
    head = _const_head(name, value)
    tensor = head.attr["value"].tensor.SerializeToString()
    del head.attr["value"]
    # Each enclosing message: what stands before the array's bytes, and with them its length.
    before = tensor + tag(4) + varint(value.nbytes)
    for number, prefix in (
        (8, b""),
        (2, message_field(1, b"value")),
        (5, head.SerializeToString(deterministic=True)),
    ):
        before = prefix + tag(number) + varint(len(before) + value.nbytes) + before
    file.write(tag(1) + varint(len(before) + value.nbytes) + before)
    file.write(value.reshape(-1).view(np.uint8).data)  # copies only what is not in C order


def read_graph(path: Path, tensors: Mapping[str, str], heads: tuple[Head, ...] = ()) -> Graph:
    """Read a frozen graph; its large constants are moved out of the message, its nodes sorted.

    tensors: "input", "logits" and "output", as a pack's manifest has them.

    Protobuf's own parser reads the file: what it makes of the bytes is what OpenCV gets.
    Raises ConformanceError when the file is no GraphDef or lacks one of the named nodes.
    """
    try:
        definition = GraphDef.FromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, which differs between its back ends
        raise ConformanceError(f"{path} is not a frozen graph: {error}; rebuild it") from error
    constants: dict[str, Array] = {}
    nodes = list(without_large_constants(definition, constants))
    missing = set(tensors.values()) - {node.name for node in nodes}
    if missing:
        raise ConformanceError(f"{path} has no node {', '.join(sorted(missing))}; rebuild it")
    versions = GraphDef(versions=definition.versions)
    whole = Graph(versions, constants, **tensors, heads=heads)  # type: ignore[arg-type]
    return with_nodes(whole, sorted_nodes(nodes), constants)


def sorted_nodes(nodes: Iterable[Any]) -> list[Any]:
    """Return `nodes` in topological order, changed as little as that allows.

    Raises ConformanceError for a loop and for an input that is no node of the graph.
    """
    by_name = {node.name: node for node in nodes}
    sorter = TopologicalSorter({name: sources(node) for name, node in by_name.items()})
    try:
        order = list(sorter.static_order())
    except CycleError as error:
        raise ConformanceError(
            f"the graph has a loop ({' <- '.join(error.args[1][:4])}): expected a network that "
            "runs straight through, without tf.while_loop"
        ) from None
    unknown = [name for name in order if name not in by_name]
    if unknown:
        raise ConformanceError(f"the graph lacks node {unknown[0]!r}, which another node takes")
    if _is_sorted(by_name):
        return list(by_name.values())
    return [by_name[name] for name in order]


def _is_sorted(by_name: dict[str, Any]) -> bool:
    seen: set[str] = set()
    for name, node in by_name.items():
        if not seen.issuperset(sources(node)):
            return False
        seen.add(name)
    return True


def without_large_constants(definition: Any, constants: dict[str, Array]) -> Iterator[Any]:
    """Yield the nodes, a Placeholder for each large Const, whose value goes to `constants`."""
    for node in definition.node:
        if node.op == "Const" and len(node.attr["value"].tensor.tensor_content) > LARGE:
            constants[node.name] = value = _value_without_copy(node.attr["value"].tensor)
            yield placeholder(node.name, value.dtype, value.shape)
        else:
            yield node


def _value_without_copy(tensor: Any) -> Array:
    """Return the value of a TensorProto; tf.make_ndarray would copy its bytes once more."""
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    dtype = tf.as_dtype(tensor.dtype).as_numpy_dtype
    return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)


def with_input_shape(definition: Any, name: str, shape: Iterable[Optional[int]]) -> Any:
    """Return a copy of `definition` whose Placeholder `name` has the shape `shape`."""
    changed = GraphDef.FromString(definition.SerializeToString())
    node = next(node for node in changed.node if node.name == name)
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return changed
