"""The oracle: float64 is the model's own truth, samples are the activations they stand for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf

from conformance.inputs.images import pack_inputs
from conformance.models import get_model
from conformance.pack.sampling import MAX_SAMPLES, node_seed, sampled_values
from conformance.reference.freeze import Traced, trace
from conformance.reference.graph import Graph, source
from conformance.reference.graph.passes import apply_passes
from conformance.reference.oracle import MEMORY_BUDGET, chunk_size, list_layers, live_elements, run
from conformance.reference.weights import build_model, new_model

MOBILENET = get_model("mobilenet")


@pytest.fixture(scope="module")
def inputs() -> Any:
    """The inputs of mobilenet's pack, float32 [N,224,224,3]."""
    return pack_inputs(MOBILENET)[1]


@pytest.fixture(scope="module")
def model() -> Any:
    """A calibrated mobilenet."""
    return build_model(MOBILENET)


@pytest.fixture(scope="module")
def traced(model: Any) -> Traced:
    """The traced mobilenet."""
    return trace(model)


@contextmanager
def _keras_float64() -> Iterator[None]:
    # Keras 3 reads floatx once, then keeps a policy.
    tf.keras.backend.set_floatx("float64")
    tf.keras.mixed_precision.set_global_policy("float64")
    try:
        yield
    finally:
        tf.keras.backend.set_floatx("float32")
        tf.keras.mixed_precision.set_global_policy("float32")


def _tiny() -> Graph:
    """Convolution, batch norm, ReLU, pooling and softmax on images of 6 x 5; no weights outside."""
    rng = np.random.default_rng(1)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 6, 5, 3], "x")
        kernel = tf.constant(rng.standard_normal((2, 2, 3, 4)), tf.float32)
        y = tf.nn.conv2d(x, kernel, 1, "SAME", name="conv")
        scale, offset, mean, variance = rng.uniform(0.5, 2.0, (4, 4)).astype(np.float32)
        y, *_ = tf.compat.v1.nn.fused_batch_norm(
            y, scale, offset, mean, variance, epsilon=0.1, is_training=False, name="norm"
        )
        y = tf.identity(tf.nn.relu(y, "relu"), "same")
        tf.nn.softmax(tf.reduce_mean(y, [1, 2], name="logits"), name="output")
    return Graph(graph.as_graph_def(), {}, "x", "logits", "output")


def _images(count: int) -> Any:
    return np.random.default_rng(2).standard_normal((count, 6, 5, 3)).astype(np.float32)


def _activation(graph: Graph, node: str, images: Any) -> Any:
    with tf.Graph().as_default() as whole:
        tf.import_graph_def(graph.definition, name="")
        with tf.compat.v1.Session(graph=whole) as session:
            return session.run(f"{node}:0", {f"{graph.input}:0": images})


def test_float64_run_is_the_keras_float64_model(model: Any, traced: Traced, inputs: Any) -> None:
    """The promoted graph answers as a Keras model built in float64 with the same weights does."""
    answers = run(traced.graph, inputs[:3], "float64")
    with _keras_float64():
        genuine = new_model(MOBILENET)
        genuine.set_weights([weight.astype(np.float64) for weight in model.get_weights()])
        expected = np.asarray(genuine(inputs[:3].astype(np.float64), training=False))
    assert expected.dtype == answers.outputs.dtype == np.float64
    np.testing.assert_allclose(answers.outputs, expected, rtol=0, atol=1e-9)


def test_float64_is_nearer_the_truth_than_float32(traced: Traced, inputs: Any) -> None:
    """float32 strays from float64 by rounding: more than nothing, less than a wrong answer."""
    single, double = run(traced.graph, inputs[:3]), run(traced.graph, inputs[:3], "float64")
    assert 1e-8 < np.abs(single.outputs - double.outputs).max() < 1e-3


def test_float64_truth_does_not_see_the_passes(traced: Traced, inputs: Any) -> None:
    """A pass that spoils a weight changes the frozen graph's answer and leaves the truth alone."""
    truth = run(traced.graph, inputs[:2], "float64")
    frozen = apply_passes(traced.graph)[0]
    spoilt = max(frozen.constants, key=lambda name: frozen.constants[name].size)
    frozen.constants[spoilt] = -frozen.constants[spoilt]
    assert np.abs(run(frozen, inputs[:2]).outputs - truth.outputs).max() > 0.01
    again = run(traced.graph, inputs[:2], "float64")
    np.testing.assert_array_equal(again.outputs, truth.outputs)


def test_layers_are_the_float_nodes_that_depend_on_the_input() -> None:
    """Constants, the input and Identity are no layers; the others are, in topological order."""
    found = [(layer.node, layer.op, layer.shape) for layer in list_layers(_tiny(), 7)]
    assert found == [
        ("conv", "Conv2D", [7, 6, 5, 4]),
        ("norm", "FusedBatchNormV3", [7, 6, 5, 4]),
        ("relu", "Relu", [7, 6, 5, 4]),
        ("logits", "Mean", [7, 4]),
        ("output", "Softmax", [7, 4]),
    ]


def test_layers_of_a_model_follow_their_inputs(traced: Traced) -> None:
    """Each layer of mobilenet comes after those of its inputs that are layers."""
    layers = list_layers(apply_passes(traced.graph)[0], 1)
    place = {layer.node: number for number, layer in enumerate(layers)}
    assert all(place.get(i, -1) < place[layer.node] for layer in layers for i in layer.inputs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_are_activations_at_the_positions(dtype: str) -> None:
    """A layer's samples are its whole activation's values at the layer's positions."""
    graph, images = _tiny(), _images(64)
    layers = list_layers(graph, len(images))
    samples = run(graph, images, dtype, layers).samples
    assert layers[0].positions().size == MAX_SAMPLES < np.prod(layers[0].shape)
    for layer in layers:
        whole = sampled_values(_activation(graph, layer.node, images), node_seed(layer.node))
        assert samples[layer.node].dtype == dtype
        np.testing.assert_allclose(samples[layer.node], whole, atol=1e-5)


def test_chunks_change_nothing() -> None:
    """One image at a time gives the outputs, logits and samples of all at once."""
    graph, images = _tiny(), _images(64)
    layers = list_layers(graph, len(images))
    whole = run(graph, images, "float64", layers)
    single = run(graph, images, "float64", layers, budget=1)
    np.testing.assert_allclose(single.outputs, whole.outputs, atol=1e-12)
    np.testing.assert_allclose(single.logits, whole.logits, atol=1e-12)
    for node, values in whole.samples.items():
        np.testing.assert_allclose(single.samples[node], values, atol=1e-12)


def test_chunk_size_keeps_to_the_budget() -> None:
    """As many images run at once as their activations fit in the budget, at least one."""
    graph = _tiny()
    # Alive at once: the convolution's input of 3 channels and output of 4, or two outputs of 4.
    assert live_elements(graph) == 6 * 5 * 8
    assert [chunk_size(graph, 8, budget) for budget in (1, 2000, 4000)] == [1, 1, 2]


def test_budget_is_below_the_limit_of_a_build(traced: Traced) -> None:
    """The default budget leaves room for weights and TensorFlow within 8 GiB."""
    images = chunk_size(traced.graph, 8)
    assert images * live_elements(traced.graph) * 8 <= MEMORY_BUDGET <= 8 << 28


def test_batch_norm_in_float64_uses_its_own_constants() -> None:
    """The written-out batch norm gives what TensorFlow's float32 kernel gives, within rounding."""
    graph, images = _tiny(), _images(3)
    single = run(graph, images, "float32", list_layers(graph, 3)).samples["norm"]
    double = run(graph, images, "float64", list_layers(graph, 3)).samples["norm"]
    np.testing.assert_allclose(double, single, atol=1e-5)


def test_logits_are_what_the_softmax_takes(traced: Traced, inputs: Any) -> None:
    """The softmax of the logits is the output, to the last bits of float64."""
    node = traced.graph.nodes()[traced.graph.output]
    assert (node.op, source(node.input[0])) == ("Softmax", traced.graph.logits)
    answers = run(traced.graph, inputs[:2], "float64")
    np.testing.assert_allclose(tf.nn.softmax(answers.logits), answers.outputs, atol=1e-14)


_THREADS = """
import os, sys
import tensorflow as tf
from conformance.reference.graph import GraphDef
from conformance.reference.graph.session import open_session
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
with open_session(GraphDef()):
    print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by /proc")
def test_sessions_have_the_threads_that_were_set() -> None:
    """A session runs on the threads set: noise on 1 and on 2 is measured, not assumed."""

    def threads(wanted: int) -> int:
        command = [sys.executable, "-c", _THREADS, str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert threads(9) - threads(1) == 8
