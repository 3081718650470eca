"""Weights: synthetic ones are reproducible and diverse, files load or say why they don't."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import h5py
import numpy as np

from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.reference import keras_flavour
from conformance.reference.weights import build_model, new_model
from conformance.reference.weights.diversity import diversity

MOBILENET = get_model("mobilenet")
FORMATS = ("mobilenet.weights.h5", "mobilenet.h5", "mobilenet.keras")

DIGEST = """
import hashlib
from conformance.models import get_model
from conformance.reference.weights import build_model
for name in NAMES:
    model = build_model(get_model(name))
digest = hashlib.sha256(" ".join(layer.name for layer in model.layers).encode())
for variable in model.weights:
    digest.update(variable.numpy().tobytes())
print(digest.hexdigest())
"""

SAVE = """
import sys
from pathlib import Path
import numpy as np
from conformance.models import get_model
from conformance.reference.weights import new_model
folder = Path(sys.argv[1])
model = new_model(get_model("mobilenet"))
model.save_weights(folder / "mobilenet.weights.h5")
model.save(folder / "mobilenet.h5")
model.save(folder / "mobilenet.keras")
np.savez(folder / "expected.npz", *model.get_weights())
"""

OFFLINE = """
from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.reference.weights import build_model
try:
    build_model(get_model(NAME), "imagenet")
except ConformanceError as error:
    print(error)
"""


def python(code: str, *arguments: str, legacy: bool = False, **environment: str) -> Any:
    """Start `code` in a fresh interpreter, with legacy Keras if asked for."""
    env = {**os.environ, "TF_USE_LEGACY_KERAS": str(int(legacy)), **environment}
    env.pop("CONFORMANCE_VERBOSE", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=env, stdout=-1, stderr=-1, text=True)


def finish(child: Any) -> str:
    """Return what the child printed; fail when it failed, or wrote anything to stderr."""
    out, err = child.communicate(timeout=240)
    assert (child.returncode, err) == (0, "")
    return str(out)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder of mobilenet files for each Keras flavour that can be had."""
    folders = {flavour: tmp_path_factory.mktemp(flavour) for flavour in ("keras3", "legacy")}
    children = [python(SAVE, str(f), legacy=name == "legacy") for name, f in folders.items()]
    for child in children:
        child.communicate(timeout=240)
        assert child.returncode == 0
    return folders


def test_synthetic_weights_repeat_bit_for_bit() -> None:
    """Two processes give mobilenet the same names and bits, whatever they built before it."""
    alone = python(DIGEST.replace("NAMES", "['mobilenet']"))
    after = python(DIGEST.replace("NAMES", "['mobilenetv2', 'mobilenet']"))
    assert finish(alone) == finish(after)


def test_synthetic_answers_are_diverse() -> None:
    """Mobilenet gives 16 unseen crops 6 or more classes, with a median top-1 of 0.1 to 0.95."""
    measured = diversity("mobilenet")
    assert measured.sufficient, measured


def test_legacy_synthetic_answers_are_diverse() -> None:
    """The recipe holds for legacy Keras too."""
    code = "from conformance.reference.weights.diversity import diversity"
    code = f"{code}; print(diversity('mobilenet'))"
    printed = finish(python(f"{code}; assert diversity('mobilenet').sufficient", legacy=True))
    assert "classes=" in printed


@pytest.mark.parametrize("flavour", ["keras3", "legacy"])
@pytest.mark.parametrize("name", FORMATS)
def test_file_of_either_keras_loads(saved: dict[str, Path], flavour: str, name: str) -> None:
    """Each format, written by Keras 3 or by legacy Keras, gives back the saved arrays."""
    model = build_model(MOBILENET, str(saved[flavour] / name))
    with np.load(saved[flavour] / "expected.npz") as expected:
        assert len(expected.files) == len(model.weights)
        for found, key in zip(model.get_weights(), expected.files):
            np.testing.assert_array_equal(found, expected[key])


def test_folder_is_searched_for_the_model(saved: dict[str, Path]) -> None:
    """A folder serves the model its file is named after, and an error names what is missing."""
    build_model(MOBILENET, str(saved["keras3"]))
    with pytest.raises(ConformanceError, match=r"vgg16\.weights\.h5.*vgg16\.keras"):
        build_model(get_model("vgg16"), str(saved["keras3"]))


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_file_is_named(saved: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Half a file gives an error that names it."""
    whole = (saved["keras3"] / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConformanceError, match=rf"{name} is truncated, damaged"):
        build_model(MOBILENET, str(tmp_path))


@pytest.mark.parametrize("name", FORMATS)
def test_misfit_names_layer_and_shapes(saved: dict[str, Path], name: str) -> None:
    """Another model's file gives an error with the first layer that differs, and both shapes."""
    expected = r"'expanded_conv_project' \(Conv2D\) expects \(1, 1, 32, 16\).*\(1, 1, 32, 64\)"
    with pytest.raises(ConformanceError, match=rf"{name} doesn't fit mobilenetv2.*{expected}"):
        build_model(get_model("mobilenetv2"), str(saved["keras3"] / name))


@pytest.mark.parametrize(
    ("name", "path", "layer"),
    [
        ("mobilenet.weights.h5", "layers/conv2d_3", "conv_pw_3"),
        ("mobilenet.h5", "model_weights/conv_pw_3", "conv_pw_3"),
    ],
)
def test_missing_layer_is_named(
    saved: dict[str, Path], tmp_path: Path, name: str, path: str, layer: str
) -> None:
    """A file that lacks one layer gives an error that names the layer."""
    (tmp_path / name).write_bytes((saved["keras3"] / name).read_bytes())
    with h5py.File(tmp_path / name, "a") as file:
        del file[path]
    with pytest.raises(ConformanceError, match=layer):
        build_model(MOBILENET, str(tmp_path))


def test_unknown_layer_is_named(saved: dict[str, Path], tmp_path: Path) -> None:
    """A file that holds a layer too many is another model's: the error names the layer."""
    file = tmp_path / "mobilenet.weights.h5"
    file.write_bytes((saved["keras3"] / file.name).read_bytes())
    with h5py.File(file, "a") as opened:
        opened["layers/dense/vars/0"] = np.zeros((1, 1), np.float32)
    with pytest.raises(ConformanceError, match=r"has layer 'dense', unknown to the model"):
        build_model(MOBILENET, str(file))


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    """A NaN among the weights gives an error that names its layer."""
    model = new_model(MOBILENET)
    layer = model.get_layer("conv_pw_3")
    layer.set_weights([np.full(layer.kernel.shape, np.nan, np.float32)])
    model.save_weights(tmp_path / "mobilenet.weights.h5")
    with pytest.raises(ConformanceError, match=r"layer 'conv_pw_3' .*not finite"):
        build_model(MOBILENET, str(tmp_path))


def test_archive_that_is_no_keras_model(tmp_path: Path) -> None:
    """A zip file called .keras that holds no weights gives an error that says so."""
    with zipfile.ZipFile(tmp_path / "mobilenet.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ConformanceError, match=r"has no model\.weights\.h5"):
        build_model(MOBILENET, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "file"),
    [("mobilenet", "mobilenet_1_0_224_tf.h5"), ("nasnetmobile", "nasnet_mobile.h5")],
)
def test_imagenet_offline_says_what_to_do(tmp_path: Path, name: str, file: str) -> None:
    """Without network and cache the error names file, cache folder and --weights synthetic."""
    nowhere = "http://127.0.0.1:9"
    code = OFFLINE.replace("NAME", repr(name))
    child = python(code, KERAS_HOME=str(tmp_path), HTTPS_PROXY=nowhere, https_proxy=nowhere)
    printed = finish(child)
    for part in (
        f"the file {file} in {tmp_path / 'models'}",
        "--weights synthetic",
        "--weights DIR",
    ):
        assert part in printed


def test_flavour_is_that_of_the_process() -> None:
    """TF_USE_LEGACY_KERAS decides which Keras builds the models."""
    code = "from conformance.reference import keras_flavour; print(keras_flavour())"
    assert finish(python(code, legacy=True)).strip() == "legacy"
    assert keras_flavour() in ("keras3", "legacy")
