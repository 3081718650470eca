"""Building a pack: what it holds agrees with itself, and a builder that dies leaves nothing."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.inputs import images
from conformance.inputs.preprocessing import get_mode
from conformance.models import get_model
from conformance.pack.format import REQUIRED_FILES, Pack, open_pack
from conformance.pack.request import PackRequest
from conformance.pack.sampling import SAMPLED, node_seed, sampled_values
from conformance.pack.store import list_packs
from conformance.reference import keras_flavour, uncollected
from conformance.reference.build import build_pack, check_outputs
from conformance.reference.graph import read_graph

MOBILENET = get_model("mobilenet")
REQUEST = PackRequest("mobilenet", keras=keras_flavour())

KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from conformance.pack.request import PackRequest
from conformance.reference import keras_flavour
from conformance.reference.build import build_pack

def progress(step):
    if step == "float32 answers":
        os.kill(os.getpid(), signal.SIGKILL)

build_pack(PackRequest("mobilenet", keras=keras_flavour()), Path(sys.argv[1]), progress)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack folder in which a builder was killed once it had written the graph."""
    folder = tmp_path_factory.mktemp("packs")
    child = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert any("frozen_graph.pb" in files for _, _, files in os.walk(folder))
    return folder


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """Return the list that the build of `built` adds its steps to."""
    return []


@pytest.fixture(scope="module")
def built(root: Path, steps: list[str]) -> Pack:
    """Return mobilenet's pack, built where a builder was killed before."""
    assert list_packs(root) == []
    return build_pack(REQUEST, root, steps.append)


def test_killed_builder_leaves_nothing(built: Pack, root: Path) -> None:
    """After a kill no pack shows, and the next build clears what was left."""
    assert list_packs(root) == [built.path]
    assert sorted(f.name for f in built.path.parent.iterdir()) == sorted([".lock", built.path.name])


def test_pack_is_complete(built: Pack) -> None:
    """Every file is there with the hash the manifest gives, every array with its shape and type."""
    assert sorted(open_pack(built.path).manifest.files) == sorted(REQUIRED_FILES)
    count = len(built.manifest.inputs)
    assert count >= 8
    assert built.manifest.inputs[0] == "squirrel"
    assert built.load("inputs").shape == (count, 224, 224, 3)
    for name in ("outputs", "logits"):
        for suffix, dtype in (("f32", np.float32), ("f64", np.float64)):
            array = built.load(f"{name}_{suffix}")
            assert array.shape == (count, 1000)
            assert array.dtype == np.dtype(dtype)


def test_steps_are_named(built: Pack, steps: list[str]) -> None:
    """The build announces each of its steps once, as it starts."""
    assert steps[0] == "calibrating weights"
    assert len(steps) == len(set(steps)) == 5


def test_float32_answers_stay_near_the_truth(built: Pack) -> None:
    """Keras and the frozen graph stray from float64 by rounding, and by more than nothing."""
    truth = built.load("outputs_f64")
    for name in ("outputs_f32", "frozen_f32"):
        assert 0 < np.abs(built.load(name) - truth).max() < 1e-3
    assert 0 < np.abs(built.load("logits_f32") - built.load("logits_f64")).max() < 1e-2


def test_logits_give_the_outputs(built: Pack) -> None:
    """The softmax of the recorded logits is the recorded output."""
    powers = np.exp(built.load("logits_f64"))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, built.load("outputs_f64"), rtol=1e-9)


def test_samples_are_the_activations(built: Pack) -> None:
    """The output layer's samples are the outputs at the sampled positions, in both precisions."""
    layers = {layer.node: layer for layer in built.layers()}
    layer = layers[built.manifest.tensors["output"]]
    truth = sampled_values(built.load("outputs_f64")[SAMPLED], node_seed(layer.node))
    # The frozen graph's constants were folded in float32, those of the truth were not.
    np.testing.assert_allclose(layer.f64, truth, atol=1e-4)
    frozen = sampled_values(built.load("frozen_f32")[SAMPLED], node_seed(layer.node))
    np.testing.assert_array_equal(layer.f32, frozen)
    assert [str(values.dtype) for values in (layer.f32, layer.f64)] == ["float32", "float64"]


def test_manifest_names_nodes_of_the_graph(built: Pack) -> None:
    """Input, logits, output and every layer are nodes of the frozen graph."""
    graph = read_graph(built.graph_path, built.manifest.tensors)
    assert {layer.node for layer in built.layers()} <= set(graph.nodes())


def test_keras_preprocessing_is_recorded(built: Pack) -> None:
    """What Keras' preprocess_input gave for the random image equals our statement of it."""
    recorded = built.load_archive("preprocessing.npz")
    np.testing.assert_array_equal(get_mode("tf").apply(recorded["image"]), recorded["keras"])


def test_inputs_are_what_they_are_called() -> None:
    """Black and white are the ends of the range, and no two inputs are alike."""
    names, inputs = images.pack_inputs(MOBILENET)
    by_name = dict(zip(names, inputs))
    assert (by_name["black"] == -1).all()
    assert (by_name["white"] == 1).all()
    assert len({image.tobytes() for image in inputs}) == len(names)


def test_check_photos_take_no_part_in_calibration() -> None:
    """What is judged was not calibrated on."""
    assert not set(images.CHECK_PHOTOS) & set(images.CALIBRATION_PHOTOS)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 a JPEG cut short"])
def test_unreadable_image_is_named(tmp_path: Path, content: bytes) -> None:
    """An empty, foreign or truncated image gives an error that names the file."""
    file = tmp_path / "photo.jpg"
    file.write_bytes(content)
    with pytest.raises(ConformanceError, match=r"can't read image .*photo\.jpg"):
        images.load_photo(file)


def test_truncated_photo_is_named(tmp_path: Path) -> None:
    """Half a JPEG is refused, not filled up with grey."""
    whole = fixture_path("images/apple.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConformanceError, match=r"half\.jpg.*truncated"):
        images.load_photo(tmp_path / "half.jpg")


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """A build whose weights file is damaged raises, names the file, and leaves no folder."""
    (tmp_path / "mobilenet.h5").write_bytes(b"not HDF5")
    request = PackRequest("mobilenet", weights=str(tmp_path), keras=keras_flavour())
    with pytest.raises(ConformanceError, match=r"mobilenet\.h5"):
        build_pack(request, tmp_path / "packs")
    assert [f.name for f in (tmp_path / "packs" / "mobilenet").iterdir()] == [".lock"]


def test_other_keras_is_refused(tmp_path: Path) -> None:
    """A pack of one Keras isn't built by a process that runs the other."""
    other = "keras3" if keras_flavour() == "legacy" else "legacy"
    with pytest.raises(ConformanceError, match="TF_USE_LEGACY_KERAS"):
        build_pack(PackRequest("mobilenet", keras=other), tmp_path)


def test_raw_graph_is_the_tutorials(built: Pack, tmp_path: Path) -> None:
    """With graph="raw" no pass is applied, and the same weights answer as before."""
    request = PackRequest("mobilenet", graph="raw", keras=keras_flavour())
    raw = build_pack(request, tmp_path)
    assert raw.manifest.passes == []
    assert raw.manifest.tensors["output"] in {layer.node for layer in raw.layers()}
    np.testing.assert_array_equal(raw.load("outputs_f64"), built.load("outputs_f64"))
    np.testing.assert_allclose(raw.load("frozen_f32"), built.load("frozen_f32"), atol=1e-3)


@pytest.mark.parametrize("strayed", ["eager", "truth"])
def test_trace_that_answers_otherwise_is_refused(strayed: str) -> None:
    """A traced graph that strays from Keras by more than rounding stops the build."""
    outputs = np.full((2, 1000), 1e-3, np.float32)
    ways: dict[str, Any] = {"eager": outputs[:1].copy(), "truth": outputs.astype(np.float64)}
    check_outputs(REQUEST, outputs, **ways)
    ways[strayed][:, 7] += 0.02
    with pytest.raises(
        ConformanceError, match=r"mobilenet: the model traced .* strays .* by 0\.02"
    ):
        check_outputs(REQUEST, outputs, **ways)


def test_input_that_is_all_rounding_is_no_other_trace() -> None:
    """One input of three on which float32 has no digit right does not stop the build."""
    outputs = np.full((3, 1000), 1e-3, np.float32)
    truth = outputs.astype(np.float64)
    truth[1, 7] = 1.0
    check_outputs(REQUEST, outputs, outputs[:1], truth)


def test_outputs_that_are_not_finite_are_refused() -> None:
    """Weights whose outputs are NaN make no reference."""
    outputs = np.full((2, 1000), np.nan, np.float32)
    with pytest.raises(ConformanceError, match="not finite"):
        check_outputs(REQUEST, outputs, outputs[:1], outputs.astype(np.float64))


def test_imported_modules_are_no_garbage() -> None:
    """Python's collector passes over what TensorFlow's import brought, and takes what comes after.

    Each start of TensorFlow takes a third more without this.
    """
    before = gc.get_freeze_count()
    assert before > 100_000
    with uncollected():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)
