"""Small models of a user's, made on the spot: Keras files, SavedModels, graphs of TensorFlow 1, 2.

Imports TensorFlow. Every function writes one into a folder and returns its path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

CLASSES = 7
layers = tf.keras.layers


def features(images: Any) -> Any:
    """Return the features that the small models have in common: convolutions, batch norm, ReLU6."""
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(images)
    x = layers.MaxPooling2D()(x)
    x = layers.BatchNormalization()(layers.Conv2D(12, 3, padding="same", use_bias=False)(x))
    return layers.ReLU(6.0)(x)


def model(
    heads: Sequence[tuple[str, int, Optional[str]]] = (("classes", CLASSES, "softmax"),),
    shape: tuple[Optional[int], ...] = (32, 32, 3),
) -> Any:
    """Return a small Keras model. heads: name, size and activation of each output."""
    tf.keras.utils.set_random_seed(1)
    images = layers.Input(shape)
    pooled = layers.GlobalAveragePooling2D()(features(images))
    outputs = [layers.Dense(n, activation=a, name=name)(pooled) for name, n, a in heads]
    return tf.keras.Model(images, outputs if len(outputs) > 1 else outputs[0])


TWO_HEADS = (("classes", CLASSES, "softmax"), ("box", 4, None))


def save(made: Any, path: Path) -> Path:
    """Save a Keras model as .keras, .h5 or, without suffix, as a SavedModel."""
    if path.suffix:
        made.save(path)
    else:
        made.export(str(path))
    return path


def frozen_v2(made: Any, path: Path) -> Path:
    """Freeze a Keras model as the tutorial does, into a .pb file."""
    spec = tf.TensorSpec(made.inputs[0].shape, tf.float32)
    function = tf.function(lambda x: made(x)).get_concrete_function(spec)
    definition = convert_variables_to_constants_v2(function).graph.as_graph_def()
    path.write_bytes(definition.SerializeToString())
    return path


def placeholder(
    name: str, shape: Optional[Sequence[Optional[int]]], dtype: Any = tf.float32
) -> Any:
    """Return a placeholder of TensorFlow 1."""
    return tf.compat.v1.placeholder(dtype, shape, name)


def classifier_v1() -> None:
    """Add a classifier of TensorFlow 1 to the graph, its output called "prob"."""
    images = placeholder("images", [None, 24, 24, 3])
    kernel = tf.compat.v1.get_variable("kernel", [3, 3, 3, 8])
    x = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
    statistics = [tf.constant(value, tf.float32, [8]) for value in (1.1, 0.1, 0.2, 2.0)]
    x, _, _ = tf.compat.v1.nn.fused_batch_norm(x, *statistics, is_training=False)
    x = tf.reduce_mean(x, [1, 2])
    weights = tf.compat.v1.get_variable("weights", [8, CLASSES])
    tf.nn.softmax(tf.matmul(x, weights, name="logits"), name="prob")


def graph_v1(path: Path, build: Callable[[], Any], output: Optional[str] = None) -> Path:
    """Write the graph that `build` makes; with `output` its variables are frozen first."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.set_random_seed(1)
        build()
        definition = graph.as_graph_def()
        if output is not None:
            session.run(tf.compat.v1.global_variables_initializer())
            freeze = tf.compat.v1.graph_util.convert_variables_to_constants
            definition = freeze(session, definition, [output])
    path.write_bytes(definition.SerializeToString())
    return path
