"""Keras model → frozen GraphDef that every OpenCV reads: trace, named passes, streamed to disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from conformance.errors import ConformanceError

from .graphdef import Array, Graph, GraphDef, placeholder, source, write_graph
from .passes import AppliedPass, apply_passes


@dataclass(frozen=True)
class Traced:
    """A Keras model's inference function, as a graph and callable.

    graph: the traced nodes, each read of a variable a Placeholder whose value is in
    `graph.constants` (a view of the variable). function: float32 [N,H,W,3] → (outputs, logits),
    the Keras model itself (training=False).
    """

    graph: Graph
    function: Callable[[Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Frozen:
    """The graph OpenCV is given and the passes that made it out of the traced one."""

    graph: Graph
    passes: list[AppliedPass]


def trace(model: Any) -> Traced:
    """Trace `model` (Keras 3 or legacy; input [None,H,W,3]) for any batch size.

    Raises ConformanceError when the model does not end in a softmax.
    """

    def classify(images: Any) -> tuple[Any, Any]:
        outputs = model(images, training=False)
        return outputs, _softmax(outputs).inputs[0]

    shape = [None, *model.inputs[0].shape[1:]]
    images = tf.TensorSpec(shape, tf.float32, name="input")
    function = tf.function(classify).get_concrete_function(images)
    return Traced(_skeleton(function), function)


def _softmax(output: Any) -> Any:
    """Return the operation of the softmax that `output`, a tensor of a traced function, is."""
    operation = output.op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    if operation.type != "Softmax":
        raise ConformanceError(
            f"the model's last operation is {operation.type} ({operation.name}), expected Softmax: "
            "use a classifier built with classifier_activation='softmax'"
        )
    return operation


def _skeleton(function: Any) -> Graph:
    definition = function.graph.as_graph_def()
    values = _captured_values(function)
    constants: dict[str, Array] = {}
    nodes = []
    for node in definition.node:
        if node.op == "ReadVariableOp":
            constants[node.name] = value = values[source(node.input[0])]
            nodes.append(placeholder(node.name, value.dtype, value.shape))
        elif node.name not in values:  # else the handle of a variable, which nothing reads now
            nodes.append(node)
    softmax = _softmax(function.outputs[0])
    image, logits = function.inputs[0].op.name, softmax.inputs[0].op.name
    skeleton = GraphDef(node=nodes, versions=definition.versions)
    return Graph(skeleton, constants, image, logits, softmax.name)


def _captured_values(function: Any) -> dict[str, Array]:
    """Return {Placeholder of a variable's handle: the variable's value, not copied}."""
    variables = {id(variable.handle): variable for variable in function.graph.variables}
    return {
        inner.op.name: np.asarray(memoryview(variables[id(handle)].value()))
        for handle, inner in function.graph.captures
    }


def freeze(traced: Traced) -> Frozen:
    """Return the graph for OpenCV: the traced one after every pass whose pattern is in it.

    A pass keeps name and value of every node it leaves, so that a node of the frozen graph which
    depends on the input is found in the traced one.
    """
    graph, passes = apply_passes(traced.graph)
    return Frozen(graph, passes)


def write_frozen(path: Path, frozen: Frozen) -> None:
    """Write the frozen graph to `path` (binary GraphDef), constants streamed from their arrays."""
    write_graph(path, frozen.graph)


def freeze_raw(model: Any, path: Path) -> Graph:
    """Freeze `model` by the recipe of OpenCV's tutorial, unmodified, into `path`.

    The recipe: tf_cls_tutorial_dnn_conversion, get_tf_model_proto. Returns the traced graph, whose
    input, logits and output name the same nodes in the file; its definition and constants are
    those of the trace.
    """
    tf_model_graph = tf.function(lambda x: model(x))
    tf_model_graph = tf_model_graph.get_concrete_function(
        tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    )
    frozen_tf_func = convert_variables_to_constants_v2(tf_model_graph)
    frozen_tf_func.graph.as_graph_def()
    tf.io.write_graph(
        graph_or_graph_def=frozen_tf_func.graph,
        logdir=str(path.parent),
        name=path.name,
        as_text=False,
    )
    return _skeleton(tf_model_graph)
