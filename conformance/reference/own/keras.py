"""A Keras model from the user's .keras or .h5 file: refused where loading it would run its code."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf

from conformance.errors import ConformanceError, first_line
from conformance.pack.sealed import parse_json

# Where Keras' own classes and functions come from, as a saved configuration names them.
_KERAS = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")
_REMEDY = "replace it by Keras' own layers, or freeze the model to a .pb graph and give that"


def load_keras(path: Path) -> Any:
    """Return the model in the .keras or .h5 file `path`, loaded with safe_mode, not compiled.

    Raises ConformanceError, naming file and layer, for a file that is none, a Lambda layer or a
    custom object, weights without a model, and a model with several inputs.
    """
    configuration = _keras_config(path) if path.suffix == ".keras" else _hdf5_config(path)
    _refuse_code(path, configuration)
    try:
        model = tf.keras.models.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises what comes: TypeError, ValueError, KeyError, OSError
        raise ConformanceError(
            f"{path}: Keras {tf.keras.__version__} can't load it: {first_line(error)}; {_REMEDY}"
        ) from error
    _check_inputs(path, model)
    return model


def _keras_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return parse_json(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
        raise ConformanceError(
            f"{path} is no Keras file ({first_line(error)}): expected a zip archive with "
            "config.json and model.weights.h5, as model.save() writes it"
        ) from error


def _hdf5_config(path: Path) -> Any:
    try:
        with h5py.File(path, "r") as file:
            stored = file.attrs.get("model_config")
    except OSError as error:
        raise ConformanceError(f"{path} is no HDF5 file: {first_line(error)}") from error
    if stored is None:
        raise ConformanceError(
            f"{path} holds weights, but no model: save all of it with model.save(), or, for a "
            "model of the registry, give --weights"
        )
    return parse_json(stored)


def _refuse_code(path: Path, configuration: Any) -> None:
    """Raise ConformanceError for what would run code from the file, or needs the user's own."""
    for entry in _objects(configuration):
        kind, settings = entry["class_name"], entry["config"]
        name = settings.get("name", "") if isinstance(settings, dict) else settings
        if kind in ("Lambda", "__lambda__"):
            raise ConformanceError(
                f"{path} has a Lambda layer ({name!r}), which is Python code inside the file: it "
                f"is not run; {_REMEDY}"
            )
        module = entry.get("module")
        own_function = kind == "function" and module == "builtins"
        if own_function or (isinstance(module, str) and not _is_keras(module)) or _custom(entry):
            raise ConformanceError(
                f"{path} needs a custom object, {name or kind!r} ({kind}), whose code is not in "
                f"the file; {_REMEDY}"
            )


def _custom(entry: dict[str, Any]) -> bool:
    """Whether Keras saved an object that is registered by its user, without a module."""
    registered = entry.get("registered_name")
    return "module" in entry and entry["module"] is None and bool(registered)


def _is_keras(module: str) -> bool:
    return module == "builtins" or any(
        module == home or module.startswith(home + ".") for home in _KERAS
    )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the serialised objects in a configuration, outer ones first."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str) and "config" in value:
            yield value
        children = list(value.values())
    else:
        children = value if isinstance(value, list) else []
    for child in children:
        yield from _objects(child)


def _check_inputs(path: Path, model: Any) -> None:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ConformanceError(f"{path}: the model has no defined input; save it after building it")
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs)
        raise ConformanceError(
            f"{path} takes {len(inputs)} inputs of the shapes {shapes}: expected one, images NHWC"
        )
