"""The pack of generated models: built by several processes, whatever their number the same."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import ConformanceError
from conformance.generated.drawing import draw
from conformance.generated.outcomes import MODEL
from conformance.generated.recipes import Recipe
from conformance.generated.store import (
    ARRAYS,
    FILES,
    KIND,
    GeneratedPack,
    Manifest,
    Request,
    producer_of,
)
from conformance.pack.formats import FORMATS
from conformance.pack.request import runtime_title
from conformance.pack.sealed import now, raise_shortage
from conformance.pack.store import write_sealed
from conformance.processes.pool import process_pool
from conformance.processes.scratch import Scratch

from . import verbose

Progress = Callable[[str], None]
# So many models a task: each process gives Keras' memory back by clearing it after each model.
CHUNK = 25


def build_generated_pack(
    request: Request, root: Path, progress: Progress = lambda step: None, workers: int = 0
) -> GeneratedPack:
    """Build the pack of `request` under the folder `root` and return it, replacing one there.

    workers: processes, by default one a core. Raises ConformanceError where TensorFlow or a
    converter is missing or the disk is full; nothing half-done stays behind.
    """
    producer = producer_of(request.importers)
    if producer is None:
        raise ConformanceError(
            "building generated models needs TensorFlow with Keras 3 and the converters of "
            f"{', '.join(request.importers)}: python -m pip install -e '.[tensorflow,onnx]'"
        )
    key = request.key(producer)
    importers = list(request.importers)
    manifest = Manifest(
        key, now(), request.count, request.seed, importers, producer, graph=request.graph
    )
    manifest.runtimes = {name: runtime_title(name) for name in importers if name in FORMATS}
    target = root / MODEL / key
    write_sealed(
        KIND, root, target, manifest, lambda folder: _fill(folder, manifest, progress, workers)
    )
    return GeneratedPack(target, manifest, request.count)


def _fill(folder: Path, manifest: Manifest, progress: Progress, workers: int) -> None:
    progress("drawing recipes")
    recipes = draw(manifest.count, manifest.seed)
    files: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for models, some_files, some_arrays in _built(recipes, manifest, workers):
        manifest.models += models
        files.update(some_files)
        arrays.update(some_arrays)
        progress(f"{len(manifest.models)} of {len(recipes)} models")
    np.savez(folder / FILES, **files)
    np.savez(folder / ARRAYS, **arrays)


Part = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]


def _built(recipes: list[Recipe], manifest: Manifest, workers: int) -> Iterator[Part]:
    chunks = [recipes[start : start + CHUNK] for start in range(0, len(recipes), CHUNK)]
    with building_pool(min(workers or os.cpu_count() or 1, len(chunks))) as pool:
        yield from pool.map(
            build_part, chunks, repeat(manifest.importers), repeat(manifest.graph == "rewritten")
        )


def building_pool(workers: int = 0) -> AbstractContextManager[ProcessPoolExecutor]:
    """Give the processes that build models by `build_part`, by default one a core."""
    return process_pool(workers or os.cpu_count() or 1, "building generated models", _prepare)


def _prepare() -> None:
    """Set a building process up: one thread, and little for Python's collector to go through.

    Keras calls it for each model, which took half the time as long as it went through TensorFlow.
    """
    import tensorflow as tf

    from .generated import build_generated as build_generated  # with the converters

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if not verbose():
        warnings.simplefilter("ignore")  # of models that nobody would train
    gc.freeze()


def build_part(recipes: list[Recipe], importers: list[str], rewritten: bool = False) -> Part:
    """Return manifest entries, files and arrays of some models.

    rewritten: as apply_passes has it.
    """
    from .generated import FILE_OF, IllConditioned, build_generated

    models, files, arrays = [], {}, {}
    converted = [importer for importer in importers if importer != "tensorflow"]
    with Scratch() as name:
        folder = Path(name)
        for recipe in recipes:
            key = recipe.key()
            entry: dict[str, Any] = {"key": key, "recipe": recipe.as_dict()}
            models.append(entry)
            try:
                built = build_generated(recipe, folder, converted, rewritten)
            except IllConditioned as error:
                entry["left_out"] = str(error)
                continue
            except Exception as error:  # one model that Keras can't build must not cost the others
                raise_shortage(error)
                reason = str(error).strip().splitlines()[:1]
                entry["left_out"] = f"TensorFlow can't build or run it: {' '.join(reason)}"
                continue
            entry.update(operations=built.operations, refused=built.refused)
            for importer in built.operations:
                data = np.fromfile(folder / FILE_OF[importer], np.uint8)
                files[f"{key}/{importer}"] = data
            arrays.update({f"{key}/{what}": values for what, values in built.arrays.items()})
    return models, files, arrays
