"""Weights that come as files: Keras' ImageNet download, and files of the user's.

The user's files are read with h5py, and only for their arrays: the architecture is always the
registry's own, no layer or function is ever deserialised, nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from conformance.errors import ConformanceError
from conformance.models import ModelSpec
from conformance.pack.request import PackRequest, weights_file
from conformance.reference import keras_flavour

# Seconds without a byte from the server before a download counts as failed.
DOWNLOAD_TIMEOUT = 20.0

# What h5py, zipfile and our own reading raise when a file is not laid out as Keras does.
_DAMAGE = (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile)

# The name under which keras.applications caches a model's weights; {0} is the model's name.
_USUAL_FILE = "{0}_weights_tf_dim_ordering_tf_kernels.h5"
_IMAGENET_FILES = {
    "inceptionresnetv2": _USUAL_FILE.format("inception_resnet_v2"),
    "inceptionv3": _USUAL_FILE.format("inception_v3"),
    "mobilenet": "mobilenet_1_0_224_tf.h5",
    "mobilenetv2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
    "nasnetlarge": "nasnet_large.h5",
    "nasnetmobile": "nasnet_mobile.h5",
    "mobilenetv3small": "weights_mobilenet_v3_small_224_1.0_float.h5",
    "mobilenetv3large": "weights_mobilenet_v3_large_224_1.0_float.h5",
    **{f"efficientnetb{n}": f"efficientnetb{n}.h5" for n in range(8)},
    **{f"efficientnetv2b{n}": f"efficientnetv2-b{n}.h5" for n in range(4)},
    **{f"efficientnetv2{n}": f"efficientnetv2-{n}.h5" for n in "sml"},
    **{f"convnext{n}": f"convnext_{n}.h5" for n in ("tiny", "small", "base", "large", "xlarge")},
}


def imagenet_file(spec: ModelSpec) -> Path:
    """Return where Keras keeps the model's ImageNet weights; the file need not exist."""
    home = os.environ.get("KERAS_HOME") if keras_flavour() == "keras3" else None
    folder = Path(home) if home else Path.home() / ".keras"
    return folder / "models" / _IMAGENET_FILES.get(spec.name, _USUAL_FILE.format(spec.name))


def imagenet_model(spec: ModelSpec) -> Any:
    """Return the Keras model of `spec` with ImageNet weights, downloaded unless in Keras' cache.

    Raises ConformanceError, naming the file, the cache folder and other --weights, when Keras
    can't have them. A server that says nothing for DOWNLOAD_TIMEOUT seconds counts as absent.
    """
    builder = getattr(tf.keras.applications, spec.builder)
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
            return builder(weights="imagenet", input_shape=(spec.size, spec.size, 3))
    except Exception as error:  # Keras raises a bare Exception when a download fails
        wanted = imagenet_file(spec)
        raise ConformanceError(
            f"{spec.name}: Keras can't get its ImageNet weights ({error}). It wants the file "
            f"{wanted.name} in {wanted.parent}: connect to the network or put it there, or use "
            "--weights synthetic (needs no file) or --weights DIR (files of your own)"
        ) from error


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_weights(model: Any, spec: ModelSpec, weights: str) -> None:
    """Load the user's file, or the one named after the model in the user's folder, into `model`.

    Formats: Keras' ``.weights.h5``, ``.keras``, and legacy ``.h5`` of weights or a whole model.
    Raises ConformanceError, naming file and layer, when it is missing, damaged or doesn't fit.
    """
    path = weights_file(PackRequest(spec.name, weights))
    if path is None:
        raise ConformanceError(
            f"weights {weights!r} of {spec.name} name no file: give the path of a weights file "
            "or of a folder of them to build a pack"
        )
    try:
        with _opened(path) as file:
            _set_weights(model, spec, path, file)
    except _DAMAGE as error:
        raise ConformanceError(
            f"weights file {path} is truncated, damaged or of another format ({error}): "
            f"save {spec.name} again as .weights.h5, .h5 or .keras"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield the HDF5 file that `path` is, or that a .keras archive holds."""
    if path.suffix != ".keras":
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        if "model.weights.h5" not in archive.namelist():
            raise ConformanceError(f"{path} has no model.weights.h5: it is no Keras model")
        with archive.open("model.weights.h5") as member, h5py.File(member, "r") as file:
            yield file


def _set_weights(model: Any, spec: ModelSpec, path: Path, file: Any) -> None:
    legacy = "layer_names" in file.attrs or "model_weights" in file
    layers = [layer for layer in model.layers if layer.weights]
    stored = _legacy_layers(file) if legacy else _keras3_layers(file, model)
    unfit = f"weights file {path} doesn't fit {spec.name}: "
    for layer, (name, datasets) in zip(layers, stored):
        problem = _misfit(layer, name, datasets)
        if problem:
            raise ConformanceError(unfit + problem)
        layer.set_weights([_values(dataset, unfit, layer) for dataset in datasets])
    if len(stored) != len(layers):
        extra = [name for name, _ in stored[len(layers) :]]
        lacking = [layer.name for layer in layers[len(stored) :]]
        wrong = f"has layer {extra[0]!r}, unknown" if extra else f"lacks layer {lacking[0]!r}"
        raise ConformanceError(
            f"{unfit}the file {wrong} to the model ({len(stored)} layers, expected {len(layers)})"
        )


Stored = list[tuple[str, list[Any]]]


def _legacy_layers(file: Any) -> Stored:
    """Return name and datasets of each layer with weights, in the order the file lists them."""
    root = file.get("model_weights", file)
    groups = [(_text(name), root[_text(name)]) for name in root.attrs["layer_names"]]
    listed = [
        (name, [group[_text(weight)] for weight in group.attrs["weight_names"]])
        for name, group in groups
    ]
    return [(name, datasets) for name, datasets in listed if datasets]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _keras3_layers(file: Any, model: Any) -> Stored:
    """Return name and datasets of each layer with weights: the model's, then those left over.

    The file calls a layer after its class, counting: conv2d, conv2d_1, …, not by its own name.
    """
    root = file["layers"] if "layers" in file else file.get("_layer_checkpoint_dependencies", {})
    groups = {name: group["vars"] for name, group in root.items() if len(group.get("vars", ()))}
    stored, seen = [], Counter[str]()
    for layer in model.layers:
        kind = _snake_case(type(layer).__name__)
        name = f"{kind}_{seen[kind]}" if seen[kind] else kind
        seen[kind] += 1
        if layer.weights:
            stored.append((name, _numbered(groups.pop(name, {}))))
    return stored + [(name, _numbered(group)) for name, group in groups.items()]


def _snake_case(name: str) -> str:
    """Spell a class name as Keras' saving library does (keras/src/utils/naming.py)."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _numbered(group: Any) -> list[Any]:
    return [group[name] for name in sorted(group, key=int)]


def _misfit(layer: Any, name: str, datasets: list[Any]) -> str:
    """Return what is wrong with the datasets for the layer, or ""."""
    expected = [tuple(variable.shape) for variable in layer.weights]
    found = [tuple(dataset.shape) for dataset in datasets]
    if found == expected:
        return ""
    listed = " ".join(map(str, found)) or "nothing"
    return (
        f"layer {layer.name!r} ({type(layer).__name__}) expects "
        f"{' '.join(map(str, expected))}, but the file's {name!r} has {listed}"
    )


def _values(dataset: Any, unfit: str, layer: Any) -> NDArray[np.float32]:
    values = np.asarray(dataset, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ConformanceError(f"{unfit}layer {layer.name!r} has values that are not finite")
    return values
