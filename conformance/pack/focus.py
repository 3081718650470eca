"""The pack of one input, made on demand, for a failure on an input whose nodes a pack has not.

A pack holds the nodes' activations on the inputs SAMPLED only, and a fault may show on another: a
ReLU6 in the place of a ReLU changes nothing where no value is above 6.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from conformance.processes.child import ask_module

from .builder import require_runtime, require_tensorflow
from .format import LAYERS, Pack
from .formats import FORMATS
from .request import keras_flavour


def focus_pack(pack: Pack, index: int, folder: Path, timeout: float = 600) -> Pack:
    """Write into `folder` what judging the pack's input number `index` alone needs; return it.

    timeout: seconds that TensorFlow, or a file's own runtime, may take. Raises ConformanceError
    where it is not installed, or fails.
    """
    name = pack.manifest.inputs[index]
    _require(pack, f"reading the nodes on the input {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in pack.path.iterdir():
        if file.suffix == ".npy":
            np.save(folder / file.name, np.load(file, allow_pickle=False)[index : index + 1])
        elif file.name != LAYERS:
            _link(file, folder / file.name)
    _write_samples(pack, index, folder / LAYERS, timeout)
    layers = [{**entry, "shape": [1, *entry["shape"][1:]]} for entry in pack.manifest.layers]
    return Pack(folder, replace(pack.manifest, inputs=[name], layers=layers), pack.head)


def _link(file: Path, link: Path) -> None:
    try:
        link.symlink_to(file.resolve())
    except OSError:  # Windows lets few users make one
        (shutil.copytree if file.is_dir() else shutil.copy)(file, link)


def _write_samples(pack: Pack, index: int, file: Path, timeout: float) -> None:
    arguments = [str(pack.path.resolve()), str(index), str(file.resolve())]
    name, own = pack.manifest.inputs[index], pack.manifest.importer in FORMATS
    failure = f"{'Its runtime' if own else 'TensorFlow'} could not run {pack.model} on {name!r}"
    module = "conformance.runtimes.focus" if own else "conformance.reference.focus"
    ask_module(module, arguments, timeout, failure)


def _require(pack: Pack, task: str) -> None:
    importer = pack.manifest.importer
    if importer not in FORMATS:
        require_tensorflow(keras_flavour(), task)
    else:
        require_runtime(importer, task)
