"""A frozen graph as a TFLite file, by TensorFlow's own converter."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from conformance.reference import quiet
from conformance.reference.graph import Graph, embedded
from conformance.runtimes.tflite import ends


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
    return ends(path)
