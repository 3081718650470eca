"""A frozen graph as a TFLite file, by TensorFlow's own converter, and what its interpreter says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from conformance.reference import quiet
from conformance.reference.graph import Array, Graph, embedded


def convert(graph: Graph, shape: list[int], path: Path) -> tuple[str, str]:
    """Write `graph` to `path` for one image of `shape` [H, W, C]; return input and first output.

    float32, no optimisations, batch 1: with an unknown batch the converter emits SHAPE operations
    for some of the models, which OpenCV's importer does not know (4.14.0, 5.0.0).
    """
    definition = embedded(graph)

    def classify(image: object) -> object:
        return tf.import_graph_def(
            definition,
            input_map={f"{graph.input}:0": image},
            return_elements=[f"{name}:0" for name in graph.outputs()],
            name="",
        )

    spec = tf.TensorSpec([1, *shape], tf.float32, name="input")
    with quiet():
        function = tf.function(classify).get_concrete_function(spec)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        path.write_bytes(converter.convert())
    interpreter = _interpreter(path, keep=False)
    ends = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    return ends[0]["name"], ends[1]["name"]


def operations(path: Path) -> list[tuple[str, str]]:
    """Return (tensor, operation's name) of what each operation gives; TFLite names none."""
    interpreter = _interpreter(path, keep=False)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    return [(names[op["outputs"][0]], "") for op in interpreter._get_ops_details()]


def run(path: Path, images: Array, inner: bool) -> Iterator[tuple[list[Array], dict[str, Array]]]:
    """Yield, image by image, the outputs, NHWC, and, if asked for, {inner tensor: value}.

    images: float32 NHWC. By TensorFlow's interpreter, its own kernels: no delegate fuses anything.
    """
    interpreter = _interpreter(path, keep=inner)
    interpreter.allocate_tensors()
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    given = [op["outputs"][0] for op in interpreter._get_ops_details()] if inner else []
    results = [detail["index"] for detail in interpreter.get_output_details()]
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        values = {names[index]: np.array(interpreter.get_tensor(index)) for index in given}
        yield [np.array(interpreter.get_tensor(index)) for index in results], values


def _interpreter(path: Path, keep: bool) -> tf.lite.Interpreter:
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # it is to move to a package of its own
        return tf.lite.Interpreter(
            str(path),
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep,
            num_threads=2,
        )
