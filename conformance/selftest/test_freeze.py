"""Freezing: the file holds the model's own function, whatever the Keras, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf

from conformance.errors import ConformanceError
from conformance.inputs.images import pack_inputs
from conformance.models import get_model
from conformance.reference import keras_flavour
from conformance.reference.freeze import Traced, freeze_raw, trace
from conformance.reference.graph import Graph, GraphDef, constant, read_graph, write_graph
from conformance.reference.graph.passes import apply_passes
from conformance.reference.oracle import list_layers, run
from conformance.reference.weights import build_model

from .benchmarks import freezing as freeze_benchmark

# Folding regroups nothing: only the order of float32 sums inside a kernel may differ.
ROUNDING = 2e-4


@pytest.fixture(scope="module")
def inputs() -> Any:
    """The inputs of mobilenet's pack, float32 [N,224,224,3]."""
    return pack_inputs(get_model("mobilenet"))[1]


@pytest.fixture(scope="module")
def model() -> Any:
    """A calibrated mobilenet."""
    return build_model(get_model("mobilenet"))


@pytest.fixture(scope="module")
def traced(model: Any) -> Traced:
    """The traced mobilenet."""
    return trace(model)


@pytest.fixture(scope="module")
def frozen(traced: Traced) -> Graph:
    """The frozen mobilenet."""
    return apply_passes(traced.graph)[0]


@pytest.fixture(scope="module")
def frozen_file(frozen: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the frozen mobilenet."""
    path = tmp_path_factory.mktemp("freeze") / "frozen_graph.pb"
    write_graph(path, frozen)
    return path


def _tensors(graph: Graph) -> dict[str, str]:
    return {"input": graph.input, "logits": graph.logits, "output": graph.output}


def _tiny(scope: str = "") -> Graph:
    """Softmax(x · (w + w)), w outside the message, and a node that nothing needs."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        w = tf.compat.v1.placeholder(tf.float32, [3, 2], "w")
        logits = tf.matmul(x, tf.add(w, w, "twice"), name="logits")
        tf.nn.softmax(logits, name="output")
        tf.identity(logits, "unused")
    value = np.arange(6, dtype=np.float32).reshape(3, 2)
    return Graph(graph.as_graph_def(), {"w": value}, "x", "logits", "output")


def test_frozen_file_computes_the_keras_model(
    model: Any, frozen: Graph, frozen_file: Path, inputs: Any
) -> None:
    """TensorFlow running the file equals the Keras model within float32 rounding."""
    answers = run(read_graph(frozen_file, _tensors(frozen)), inputs)
    np.testing.assert_allclose(answers.outputs, model(inputs, training=False), atol=ROUNDING)


def test_traced_function_is_the_keras_model(model: Any, traced: Traced, inputs: Any) -> None:
    """The traced function gives the model's outputs, and logits whose softmax they are."""
    outputs, logits = traced.function(tf.constant(inputs))
    np.testing.assert_allclose(outputs, model(inputs, training=False), atol=ROUNDING)
    np.testing.assert_allclose(outputs, tf.nn.softmax(logits), atol=1e-6)


def test_tutorial_recipe_computes_the_keras_model(model: Any, inputs: Any, tmp_path: Path) -> None:
    """The file of the unmodified recipe equals the Keras model too, under the names returned."""
    graph = freeze_raw(model, tmp_path / "raw.pb")
    answers = run(read_graph(tmp_path / "raw.pb", _tensors(graph)), inputs)
    np.testing.assert_allclose(answers.outputs, model(inputs, training=False), atol=ROUNDING)


def test_batch_size_is_free(frozen: Graph, frozen_file: Path, inputs: Any) -> None:
    """The file answers any number of images with as many rows."""
    graph = read_graph(frozen_file, _tensors(frozen))
    assert [run(graph, inputs[:n]).outputs.shape for n in (1, 3)] == [(1, 1000), (3, 1000)]


def test_variables_are_not_copied(model: Any, traced: Traced) -> None:
    """A traced graph's constants are the memory of the model's variables, not copies of it."""
    kernel = model.layers[1].weights[0]
    variable = kernel if isinstance(kernel, tf.Variable) else kernel.value  # Keras 3 wraps it
    memory = np.asarray(memoryview(variable.value()))
    assert any(np.shares_memory(memory, value) for value in traced.graph.constants.values())


def test_layers_keep_name_and_shape(traced: Traced, frozen: Graph) -> None:
    """Each layer of the frozen graph is in the traced one, so that its float64 value can be had."""
    before = {layer.node: layer.shape for layer in list_layers(traced.graph, 2)}
    assert all(before[layer.node] == layer.shape for layer in list_layers(frozen, 2))


def test_no_operation_on_constants_is_left(frozen: Graph, frozen_file: Path) -> None:
    """Every operation in the file depends on the input: the rest are constants."""
    depends = {layer.node for layer in list_layers(frozen, 1)}
    left = {n.name: n.op for n in GraphDef.FromString(frozen_file.read_bytes()).node}
    idle = {op for name, op in left.items() if name not in depends}
    assert idle <= {"Const", "Placeholder", "Identity", "Shape", "StridedSlice", "Pack"}


def test_passes_are_recorded_with_what_they_found() -> None:
    """A pass that found its pattern is recorded with the number of nodes that had it."""
    graph, passes = apply_passes(_tiny())
    assert [(p.name, p.nodes) for p in passes] == [("keep_only_result", 1), ("fold_constants", 1)]
    assert [node.name for node in graph.definition.node] == ["x", "twice", "logits", "output"]
    np.testing.assert_array_equal(graph.constants["twice"], 2 * _tiny().constants["w"])


def test_passes_leave_alone_what_has_no_pattern() -> None:
    """On a graph that needs no change no pass is applied, and the graph is the same object."""
    clean, _ = apply_passes(_tiny())
    again, passes = apply_passes(clean)
    assert again is clean
    assert passes == []


def test_swish_of_keras_is_read_without_its_wrapping() -> None:
    """IdentityN, which wraps a swish for its gradient, is bypassed; its value is the same."""
    images = tf.keras.layers.Input((4, 4, 3))
    x = tf.keras.layers.Conv2D(4, 3, activation="swish")(images)
    model = tf.keras.Model(images, tf.keras.layers.Softmax()(tf.keras.layers.Flatten()(x)))
    traced = trace(model).graph
    assert "IdentityN" in {node.op for node in traced.definition.node}
    bypassed, passes = apply_passes(traced)
    assert "bypass_identities" in [p.name for p in passes]
    assert "IdentityN" not in {node.op for node in bypassed.definition.node}
    inputs = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    np.testing.assert_array_equal(run(bypassed, inputs).outputs, run(traced, inputs).outputs)
    double = run(traced, inputs, "float64").outputs
    np.testing.assert_allclose(double, run(bypassed, inputs, "float64").outputs, rtol=1e-12)


def test_compressed_constants_are_written_out() -> None:
    """A constant that holds one value for eight is written with all eight, and recorded."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 8], "x")
        tf.multiply(x, tf.constant(1.5, shape=[8], name="factor"), name="output")
    whole = Graph(graph.as_graph_def(), {}, "x", "output", "output")
    assert len(whole.nodes()["factor"].attr["value"].tensor.float_val) == 1
    expanded, passes = apply_passes(whole)
    assert [(p.name, p.nodes) for p in passes] == [("expand_constants", 1)]
    assert expanded.nodes()["factor"] == constant("factor", np.full(8, 1.5, np.float32))


@pytest.mark.parametrize("shape", [(), (0,), (31,), (32,), (5, 7, 3000)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_streamed_constant_is_what_protobuf_writes(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    """A constant streamed to the file parses to the node that protobuf itself would have held."""
    value = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    graph = replace(_tiny(), constants={**_tiny().constants, "unused": value})
    write_graph(tmp_path / "graph.pb", graph)
    written = {n.name: n for n in GraphDef.FromString((tmp_path / "graph.pb").read_bytes()).node}
    assert written["unused"] == constant("unused", value)
    np.testing.assert_array_equal(tf.make_ndarray(written["unused"].attr["value"].tensor), value)


def test_non_contiguous_constant_is_written_in_c_order(tmp_path: Path) -> None:
    """A transposed view is written by its values, not by its memory."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_graph(tmp_path / "graph.pb", replace(_tiny(), constants={"w": value}))
    read = read_graph(tmp_path / "graph.pb", {"input": "x", "logits": "logits", "output": "output"})
    node = next(n for n in read.definition.node if n.name == "w")
    np.testing.assert_array_equal(tf.make_ndarray(node.attr["value"].tensor), value)


def test_model_without_softmax_is_its_own_logits() -> None:
    """A model that ends in anything but a softmax is traced with its output as the logits."""
    model = tf.keras.Sequential([tf.keras.layers.Input((4, 4, 3)), tf.keras.layers.Flatten()])
    graph = trace(model).graph
    assert graph.logits == graph.output
    assert [(head.kind, head.shape) for head in graph.heads] == [("values", (48,))]


def test_truncated_file_is_refused(frozen: Graph, frozen_file: Path, tmp_path: Path) -> None:
    """A file cut short gives an error that names it."""
    short = tmp_path / "short.pb"
    short.write_bytes(frozen_file.read_bytes()[:-1000])
    with pytest.raises(ConformanceError, match=r"short\.pb.*rebuild"):
        read_graph(short, _tensors(frozen))


def test_file_without_the_named_node_is_refused(frozen: Graph, frozen_file: Path) -> None:
    """A file that lacks the node asked for gives an error that names both."""
    with pytest.raises(ConformanceError, match=r"frozen_graph\.pb has no node probabilities"):
        read_graph(frozen_file, {**_tensors(frozen), "output": "probabilities"})


def test_freezing_takes_less_than_half_the_memory() -> None:
    """Each way is measured in a process of its own; ours adds less than half of TensorFlow's."""
    theirs, ours = freeze_benchmark.run("mobilenet")
    assert ours.over_model_mib < theirs.over_model_mib / 2
    assert ours.file_mib == pytest.approx(theirs.file_mib, rel=0.05)
    assert all(
        row.way in freeze_benchmark.table("mobilenet", [theirs, ours]) for row in (theirs, ours)
    )


def test_failed_measurement_is_explained() -> None:
    """A measuring process that fails gives an error with its last lines, not half a table."""
    with pytest.raises(
        ConformanceError, match=r"freezing mobilenet with no such way(.|\n)*KeyError"
    ):
        freeze_benchmark.measured_in_child("mobilenet", "no such way")


@pytest.mark.skipif("CONFORMANCE_OTHER_FLAVOUR" in os.environ, reason="is that run")
def test_all_of_this_holds_for_the_other_keras() -> None:
    """The tests of this file and of the oracle pass with the other of Keras 3 and legacy Keras."""
    legacy = "0" if keras_flavour() == "legacy" else "1"
    env = {**os.environ, "TF_USE_LEGACY_KERAS": legacy, "CONFORMANCE_OTHER_FLAVOUR": "1"}
    here = Path(__file__)
    files = [str(here), str(here.with_name("test_oracle.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    command += ["-k", "not memory and not measurement"]  # which know no Keras
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
