"""Models of the user's own, from their files to packs: what is found in them, what is refused."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.inputs.preprocessing import Preprocessing
from conformance.opencv.capability import probe_in_child
from conformance.opencv.run import run_candidate
from conformance.own_models import OwnModel, own_model
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.pack.request import PackRequest, keras_flavour
from conformance.reference.build import build_pack
from conformance.reference.formats import build_conversion
from conformance.reference.own import load_own

from .own_models import (
    CLASSES,
    TWO_HEADS,
    classifier_v1,
    features,
    frozen_v2,
    graph_v1,
    layers,
    model,
    placeholder,
    save,
)


def build(own: OwnModel, root: Path, graph: str = "opencv") -> Pack:
    """Build the pack of an own model."""
    return build_pack(PackRequest(own.name, graph=graph, keras=keras_flavour(), own=own), root)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network in every format, and a graph of TensorFlow 1."""
    home = tmp_path_factory.mktemp("models")
    made = model(TWO_HEADS)
    return {
        "keras": save(made, home / "net.keras"),
        "h5": save(made, home / "net.h5"),
        "saved": save(made, home / "saved"),
        "v2": frozen_v2(made, home / "net.pb"),
        "v1": graph_v1(home / "v1.pb", classifier_v1, "prob"),
    }


@pytest.mark.parametrize("graph", ["opencv", "raw"])
@pytest.mark.parametrize("format", ["keras", "h5", "saved", "v2"])
def test_every_format_is_the_same_network(
    files: dict[str, Path], format: str, graph: str, tmp_path: Path
) -> None:
    """One network saved four ways gives four packs with one truth, for both of its outputs."""
    expected = model(TWO_HEADS)
    pack = build(own_model(files[format]), tmp_path, graph)
    assert [head.kind for head in pack.heads()] == ["softmax", "values"]
    outputs = expected(pack.load("inputs"))
    for head, output in zip(pack.heads(), outputs):
        np.testing.assert_allclose(head.load("outputs_f64"), output, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(head.load("frozen_f32"), output, rtol=1e-3, atol=1e-3)


def test_graph_of_tensorflow_1(files: dict[str, Path], tmp_path: Path) -> None:
    """In a frozen graph of TensorFlow 1 softmax and logits are found; raw, its bytes are kept."""
    own = own_model(files["v1"])
    pack = build(own, tmp_path)
    assert pack.manifest.tensors == {"input": "images", "logits": "logits", "output": "prob"}
    assert pack.manifest.own is not None
    assert pack.manifest.own["input_shape"] == [24, 24, 3]
    raw = build(own, tmp_path, "raw")
    assert raw.graph_path.read_bytes() == files["v1"].read_bytes()
    np.testing.assert_array_equal(raw.load("outputs_f64"), pack.load("outputs_f64"))


@pytest.mark.parametrize(
    ("head", "shape", "kind", "note"),
    [
        (("scores", 3, None), (32, 32, 3), "values", "3 values, no softmax"),
        (("tags", 5, "sigmoid"), (32, 32, 3), "sigmoid", "of a sigmoid"),
        (("many", 1500, "softmax"), (32, 32, 3), "softmax", "a softmax of 1500 classes"),
        (("digit", 10, "softmax"), (28, 28, 1), "softmax", "a softmax of 10 classes"),
        (("any", 4, "softmax"), (None, None, 3), "softmax", "judged at 224 x 224"),
    ],
)
def test_what_a_model_answers_is_found_and_told(
    head: Any, shape: tuple[Any, ...], kind: str, note: str, tmp_path: Path
) -> None:
    """Logits, sigmoid, other class counts, grey, free sizes: all found, and the pack says so."""
    pack = build(own_model(save(model([head], shape), tmp_path / "net.keras")), tmp_path / "packs")
    assert pack.kind == kind
    assert any(note in told for told in pack.manifest.notes)
    size = [side or 224 for side in shape]
    assert list(pack.load("inputs").shape[1:]) == size
    assert pack.load("outputs_f64").shape == (8, head[1])
    squeezed = kind != "values"
    assert (pack.manifest.tensors["logits"] != pack.manifest.tensors["output"]) == squeezed


def test_size_is_the_users_choice(tmp_path: Path) -> None:
    """A model that takes any size is judged at --model-size; one that doesn't refuses it."""
    path = save(model(shape=(None, None, 3)), tmp_path / "net.keras")
    pack = build(replace(own_model(path), size=(48, 64)), tmp_path / "packs")
    assert pack.load("inputs").shape[1:] == (48, 64, 3)
    fixed = save(model(), tmp_path / "fixed.keras")
    with pytest.raises(ConformanceError, match=r"fixed\.keras: takes images of 32 x 32 only"):
        build(replace(own_model(fixed), size=(48, 64)), tmp_path / "packs")


def test_inputs_are_preprocessed_as_told(tmp_path: Path) -> None:
    """Black and white become what the figures make of 0 and 255."""
    path = save(model(), tmp_path / "net.keras")
    figures = Preprocessing(0.5, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0), rgb=False)
    pack = build(replace(own_model(path), preprocess=figures), tmp_path / "packs")
    by_name = dict(zip(pack.manifest.inputs, pack.load("inputs")))
    np.testing.assert_allclose(by_name["black"][0, 0], [-5.0, -5.0, -3.75])
    np.testing.assert_allclose(by_name["white"][0, 0], [122.5, 58.75, 28.125])


def test_labels_go_with_the_pack(tmp_path: Path) -> None:
    """Labels of the right number are kept in the pack; of another number they are refused."""
    path = save(model(), tmp_path / "net.keras")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"class{n}" for n in range(CLASSES)))
    own = own_model(path, labels=labels)
    assert build(own, tmp_path / "packs").labels() == [f"class{n}" for n in range(CLASSES)]
    labels.write_text("one\ntwo\n")
    with pytest.raises(ConformanceError, match=rf"labels\.txt: 2 lines, .* {CLASSES} of output"):
        build(own, tmp_path / "packs")


def _images(shape: Any = (None, 8, 8, 3), dtype: Any = tf.float32) -> Any:
    return placeholder("images", shape, dtype)


def _pooled(images: Any) -> Any:
    return tf.reduce_mean(tf.cast(images, tf.float32), [1, 2], name="pooled")


_BAD_GRAPHS: dict[str, tuple[Callable[[], Any], str]] = {
    "none": (lambda: tf.constant(1.0) + 1.0, "no placeholder that its output depends on"),
    "several": (
        lambda: tf.add(_pooled(_images()), placeholder("more", [3]), name="sum"),
        "2 placeholders ('images' (float32), 'more' (float32)): expected one",
    ),
    "variables": (classifier_v1, "training graph with variables that aren't frozen"),
    "bytes": (lambda: _pooled(_images(dtype=tf.uint8)), "'images' is uint8"),
    "channels_first": (lambda: _pooled(_images([None, 3, 8, 8])), "expected images, NHWC"),
    "batch": (lambda: _pooled(_images([4, 8, 8, 3])), "takes exactly 4 images at once"),
    "no_output": (lambda: tf.argmax(_pooled(_images()), 1), "the graph has no output"),
    "no_double": (
        lambda: tf.raw_ops.AdjustContrastv2(images=_images(), contrast_factor=2.0),
        "TensorFlow can't run it in float64",
    ),
    "training": (
        lambda: tf.compat.v1.nn.fused_batch_norm(_images(), [1.0] * 3, [0.0] * 3)[0],
        "computes its own statistics",
    ),
}


@pytest.mark.parametrize("name", _BAD_GRAPHS)
def test_graph_that_cannot_be_judged_is_refused(name: str, tmp_path: Path) -> None:
    """A graph with other inputs than one image, variables or no truth gives one clear error."""
    make, said = _BAD_GRAPHS[name]
    path = graph_v1(tmp_path / f"{name}.pb", make)
    with pytest.raises(ConformanceError) as caught:
        build(own_model(path), tmp_path / "packs")
    assert said in str(caught.value)
    assert f"{name}.pb" in str(caught.value)


def test_outputs_can_be_named(tmp_path: Path) -> None:
    """With outputs named, the rest of the graph is left alone; an unknown one is an error."""

    def two() -> Any:
        pooled = _pooled(_images())
        return tf.nn.softmax(pooled, name="one"), tf.add(pooled, placeholder("more", [3]))

    path = graph_v1(tmp_path / "two.pb", two)
    assert load_own(own_model(path, outputs=["one"])).traced.graph.output == "one"
    with pytest.raises(ConformanceError, match="no node 'on'; nothing takes one"):
        load_own(own_model(path, outputs=["on"]))


def test_output_that_is_no_float_is_told(tmp_path: Path) -> None:
    """An ArgMax beside the softmax is left out, and the pack says so."""

    def best() -> Any:
        scores = tf.nn.softmax(_pooled(_images()), name="scores")
        return tf.argmax(scores, 1, name="best"), tf.identity(scores, name="told")

    subject = load_own(own_model(graph_v1(tmp_path / "best.pb", best)))
    assert [head.name for head in subject.traced.graph.heads] == ["told"]
    assert "output 'best' is int64: not judged" in subject.notes


def test_graph_of_one_image_has_no_batch(tmp_path: Path) -> None:
    """A graph that takes exactly one image is run on one at a time."""
    path = graph_v1(tmp_path / "one.pb", lambda: tf.nn.softmax(_pooled(_images([1, 8, 8, 3]))))
    pack = build(own_model(path), tmp_path / "packs")
    assert not pack.takes_batches
    assert pack.load("outputs_f64").shape == (8, 3)


class Doubled(layers.Layer):  # type: ignore[misc]
    """A layer that Keras does not have."""

    def call(self, images: Any) -> Any:
        """Return twice the images."""
        return images * 2


def _with(layer: Any, flat: bool = True) -> Any:
    images = layers.Input((8, 8, 3))
    features = layer(images)
    return tf.keras.Model(images, layers.Flatten()(features) if flat else features)


class _Trap:
    """Whoever unpickles this fails the test."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("the file was unpickled",))


def _pickle(path: Path) -> Path:
    path.write_bytes(pickle.dumps(_Trap()))
    return path


def _saved_pickle(path: Path) -> Path:
    path.mkdir()
    return _pickle(path / "saved_model.pb")


def _archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return path


def _weights_only(path: Path) -> Path:
    whole = path.with_name("whole.weights.h5")
    model().save_weights(whole)
    return whole.rename(path)


_BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lambda.keras": (lambda p: save(_with(layers.Lambda(lambda x: x)), p), "has a Lambda layer"),
    "lambda.h5": (lambda p: save(_with(layers.Lambda(lambda x: x)), p), "has a Lambda layer"),
    "custom.keras": (lambda p: save(_with(Doubled()), p), "needs a custom object"),
    "custom.h5": (lambda p: save(_with(Doubled()), p), "custom"),
    "activation.keras": (
        lambda p: save(_with(layers.Activation(lambda_free)), p),
        "needs a custom object, 'lambda_free'",
    ),
    "nested.keras": (
        lambda p: save(_with(_with(layers.Lambda(lambda x: x), flat=False)), p),
        "has a Lambda layer",
    ),
    "pickle.keras": (_pickle, "is no Keras file"),
    "pickle.h5": (_pickle, "is no HDF5 file"),
    "pickle.pb": (_pickle, "is no GraphDef"),
    "saved": (_saved_pickle, "can't load this SavedModel"),
    "archive.keras": (_archive, "is no Keras file"),
    "weights.h5": (_weights_only, "holds weights, but no model"),
    "empty.pb": (lambda p: p.write_bytes(b""), "is no GraphDef: it has no nodes"),
    "text.pb": (lambda p: p.write_text("node { name: 'x' }"), "is no GraphDef"),
    "two_inputs.keras": (
        lambda p: save(
            tf.keras.Model(both := [layers.Input((8, 8, 3)) for _ in "ab"], layers.add(both)), p
        ),
        "takes 2 inputs",
    ),
    "vectors.keras": (
        lambda p: save(tf.keras.Sequential([layers.Input((5,)), layers.Dense(2)]), p),
        "expected one, images NHWC",
    ),
}


def lambda_free(x: Any) -> Any:
    """Return x: an activation that Keras does not have."""
    return x


@pytest.mark.skipif(keras_flavour() == "legacy", reason="files of Keras 3")
@pytest.mark.parametrize("name", _BAD_FILES)
def test_file_that_would_run_code_or_is_none_is_refused(name: str, tmp_path: Path) -> None:
    """Code inside a file is not run, nothing is unpickled: one error names file and reason."""
    make, said = _BAD_FILES[name]
    make(tmp_path / name)
    with pytest.raises(ConformanceError) as caught:
        load_own(own_model(tmp_path / name))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_map_of_values_is_no_row_of_classes(tmp_path: Path) -> None:
    """A softmax over the places of an image is judged by its values, not by best classes."""
    images = layers.Input((16, 16, 3))
    made = tf.keras.Model(images, layers.Conv2D(4, 1, activation="softmax")(features(images)))
    pack = build(own_model(save(made, tmp_path / "map.keras")), tmp_path / "packs")
    assert pack.kind == "values"
    assert pack.output_shape == [8, 8, 4]
    assert pack.load("outputs_f64").shape == (8, 8 * 8 * 4)


@pytest.mark.parametrize("importer", list(FORMATS))
def test_every_output_is_converted(importer: str, tmp_path: Path) -> None:
    """TFLite and ONNX files have all outputs, and OpenCV's layers for them, with biases of zeros.

    A new Dense layer's bias is all zeros, so that a converter leaves its addition out.
    """
    for package in FORMATS[importer].packages:
        pytest.importorskip(package)
    heads = (*TWO_HEADS, ("tags", 5, "sigmoid"))
    pack = build(own_model(save(model(heads), tmp_path / "net.keras")), tmp_path / "packs")
    converted = build_conversion(pack, importer)
    found = {entry["node"] for entry in converted.manifest.tensors}
    assert {head[key] for head in pack.manifest.heads for key in ("output", "logits")} <= found
    for engine in probe_in_child()["engines"]:
        answer = run_candidate(pack, RunConfig(importer=importer, engine=engine))
        given = [answer.outputs, *(head["outputs"] for head in answer.further)]
        for head, outputs in zip(pack.heads(), given):
            truth = head.load("outputs_f64")
            np.testing.assert_allclose(converted.outputs(head.head), truth, rtol=1e-3, atol=1e-3)
            assert outputs is not None
            np.testing.assert_allclose(outputs.reshape(truth.shape), truth, rtol=1e-3, atol=1e-3)
