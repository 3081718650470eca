"""Keras model → GraphDef, traced, for the passes; or frozen by the recipe of OpenCV's tutorial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from .graph import Array, Graph, GraphDef, Head, placeholder, results_of, source
from .graph.heads import find_heads


@dataclass(frozen=True)
class Traced:
    """A Keras model's inference function, as a graph and callable.

    graph: the traced nodes, each read of a variable a Placeholder whose value is in
    `graph.constants` (a view of the variable). function: float32 [N,H,W,3] → the values of
    `graph.results()` in their order, outputs and logits first, by the Keras model itself
    (training=False).
    """

    graph: Graph
    function: Callable[[Any], Sequence[Any]]


def trace(model: Any, size: Optional[tuple[int, int]] = None) -> Traced:
    """Trace `model` (Keras 3 or legacy; input [None,H,W,3]) for any batch size.

    size: height and width for a model that takes any. Raises ConformanceError for an output that
    can't be judged (find_heads).
    """
    heads: list[Head] = []

    def classify(images: Any) -> list[Any]:
        with _inlined_functions():
            outputs = tf.nest.flatten(model(images, training=False))
        heads[:] = find_heads(_output_names(model), outputs)
        nodes = outputs[0].graph.get_tensor_by_name
        return [nodes(f"{name}:0") for name in results_of(heads)]

    _, height, width, channels = model.inputs[0].shape
    images = tf.TensorSpec([None, *(size or (height, width)), channels], tf.float32, name="input")
    function = tf.function(classify).get_concrete_function(images)
    return Traced(_skeleton(function, heads), function)


@contextmanager
def _inlined_functions() -> Iterator[None]:
    """Trace the operations of an inner tf.function, and no call of it, which OpenCV can't read.

    Keras wraps a grouped convolution (ConvNeXt) in one, for XLA.
    """
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(eagerly)


def _output_names(model: Any) -> list[str]:
    names = getattr(model, "output_names", None)  # a Sequential model has none
    return [str(name) for name in names or [tensor.name for tensor in model.outputs]]


def _skeleton(function: Any, heads: Sequence[Head]) -> Graph:
    definition = function.graph.as_graph_def()
    values, tensors = _captured_values(function), _captured_tensors(function)
    constants: dict[str, Array] = {}
    nodes = []
    for node in definition.node:
        if node.op == "ReadVariableOp":
            constants[node.name] = value = values[source(node.input[0])]
            nodes.append(placeholder(node.name, value.dtype, value.shape))
        elif node.name in tensors:
            constants[node.name] = tensors[node.name]
            nodes.append(node)
        elif node.name not in values:  # else the handle of a variable, which nothing reads now
            nodes.append(node)
    first, image = heads[0], function.inputs[0].op.name
    skeleton = GraphDef(node=nodes, versions=definition.versions)
    return Graph(skeleton, constants, image, first.logits, first.output, tuple(heads))


def _captured_values(function: Any) -> dict[str, Array]:
    """Return {Placeholder of a variable's handle: the variable's value, not copied}."""
    variables = {id(variable.handle): variable for variable in function.graph.variables}
    return {
        inner.op.name: np.asarray(memoryview(variables[id(handle)].value()))
        for handle, inner in function.graph.captures
        if id(handle) in variables
    }


def _captured_tensors(function: Any) -> dict[str, Array]:
    """Return {Placeholder: value} of the tensors, such as a Normalization layer's mean."""
    return {
        inner.op.name: np.asarray(outer)
        for outer, inner in function.graph.captures
        if outer.dtype != tf.resource
    }


def freeze_raw(model: Any, path: Path, size: Optional[tuple[int, int]] = None) -> Graph:
    """Freeze `model` by the recipe of OpenCV's tutorial, unmodified, into `path`.

    The recipe: tf_cls_tutorial_dnn_conversion, get_tf_model_proto. Returns the traced graph, whose
    input, logits and output name the same nodes in the file; its definition and constants are
    those of the trace. size: height and width for a model that takes any.
    """
    batch, height, width, channels = model.inputs[0].shape
    tf_model_graph = tf.function(lambda x: model(x))
    tf_model_graph = tf_model_graph.get_concrete_function(
        tf.TensorSpec([batch, *(size or (height, width)), channels], model.inputs[0].dtype)
    )
    frozen_tf_func = convert_variables_to_constants_v2(tf_model_graph)
    frozen_tf_func.graph.as_graph_def()
    tf.io.write_graph(
        graph_or_graph_def=frozen_tf_func.graph,
        logdir=str(path.parent),
        name=path.name,
        as_text=False,
    )
    return _skeleton(tf_model_graph, find_heads(_output_names(model), tf_model_graph.outputs))
