"""The pack of generated models: one sealed folder for all of them, built once and judged often.

``<packs>/generated/<key>/`` has pack.json (the recipes and what became of each), files.npz (what
OpenCV reads, as bytes: ``<key>/<importer>``) and arrays.npz (``<key>/inputs``, ``f32``, ``f64``,
and what the runtimes of converted files answer: ``tflite``, ``onnx``). Needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.pack.conversion import converter_versions
from conformance.pack.formats import FORMATS, IMPORTERS
from conformance.pack.request import GRAPHS, producer_versions
from conformance.pack.sealed import Kind, check_files, json_digest, read_manifest
from conformance.pack.store import list_packs
from conformance.processes.scratch import Scratch

from .outcomes import MODEL
from .recipes import Recipe, recipe_from

SCHEMA = 1
# Raised with every change that alters what is built of the same recipes and versions.
BUILD = "2"
MANIFEST, FILES, ARRAYS = "pack.json", "files.npz", "arrays.npz"
COUNT, SMALL, SEED = 1000, 120, 0
Files = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """Which generated models: the first `count` of a seed, in the formats of some importers."""

    count: int = SMALL
    seed: int = SEED
    importers: tuple[str, ...] = IMPORTERS[:1]
    graph: str = GRAPHS[0]  # or "rewritten"

    def key(self, producer: dict[str, str]) -> str:
        """Return the 16 hex digits that name the pack of the request built by `producer`."""
        asked = {name: value for name, value in vars(self).items() if value != GRAPHS[0]}
        return json_digest({"build": BUILD, **asked, "producer": producer})[:16]

    def words(self) -> str:
        """Return the options that ask for this."""
        importers = (
            f" --importer {','.join(self.importers)}" if self.importers != IMPORTERS[:1] else ""
        )
        seed = f" --generated-seed {self.seed}" if self.seed != SEED else ""
        graph = f" --graph {self.graph}" if self.graph != GRAPHS[0] else ""
        return f"--generated {self.count}{seed}{importers}{graph}"


@dataclass
class Manifest:
    """What pack.json says."""

    key: str
    created: str  # UTC
    count: int
    seed: int
    importers: list[str]
    producer: dict[str, str]
    # Of each "key", "recipe", and "operations" and "refused" by importer, or "left_out": why.
    models: list[dict[str, Any]] = field(default_factory=list)
    graph: str = GRAPHS[0]
    # By importer, what answered for its files, such as "LiteRT 2.1": each says the same of a file.
    runtimes: dict[str, str] = field(default_factory=dict)
    model: str = MODEL
    schema: int = SCHEMA
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def _command(folder: Path) -> str:
    return f"python -m conformance pack build --generated --packs {folder.parent.parent} --force"


KIND = Kind("pack of generated models", MANIFEST, Manifest, SCHEMA, _command)


@dataclass(frozen=True)
class GeneratedPack:
    """An opened pack, its files checked against the manifest's hashes."""

    path: Path
    manifest: Manifest
    count: int  # how many of its models were asked for

    @cached_property
    def models(self) -> dict[str, dict[str, Any]]:
        """The models that were asked for and can be judged, by key."""
        asked = self.manifest.models[: self.count]
        return {model["key"]: model for model in asked if "left_out" not in model}

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """Their recipes, by key."""
        where = self.path / MANIFEST
        return {
            key: recipe_from(model["recipe"], f"{where}: {key}")
            for key, model in self.models.items()
        }

    def judged(self, importer: str) -> list[str]:
        """Return the keys of the models that have a file for the importer."""
        return [key for key, model in self.models.items() if importer in model["operations"]]

    def digest(self) -> str:
        """Return the key and a digest of what OpenCV is asked."""
        asked = [self.manifest.files[name]["sha256"] for name in (FILES, ARRAYS)]
        return f"{self.manifest.key}:{json_digest([*asked, self.count])[:16]}"


def producer_of(importers: Sequence[str]) -> Optional[dict[str, str]]:
    """Return the versions that decide what is built, None where one is not installed."""
    versions = producer_versions()
    for importer in importers:
        if versions is not None and importer in FORMATS:
            more = converter_versions(importer)
            versions = None if more is None else {**more, **versions}
    return versions


def find_generated(root: Path, request: Request) -> Optional[GeneratedPack]:
    """Return the checked pack that has what is asked for, the newest of several, or None.

    Where TensorFlow is installed, only a pack by exactly these versions will do. Raises
    ConformanceError naming the file of one that is damaged.
    """
    producer = producer_of(request.importers)
    matches = []
    for path in list_packs(root, f"{MODEL}/*"):
        manifest = read_manifest(KIND, path)
        fits = manifest.seed == request.seed and manifest.count >= request.count
        has = set(request.importers) <= set(manifest.importers)
        same = producer is None or producer.items() <= manifest.producer.items()
        if fits and has and same and manifest.graph == request.graph:
            matches.append((manifest.created, path, manifest))
    if not matches:
        return None
    _, path, manifest = max(matches, key=lambda match: match[:2])
    check_files(KIND, path, manifest)
    return GeneratedPack(path, manifest, request.count)


def require_generated(root: Path, request: Request, why: str = "") -> GeneratedPack:
    """Return the checked pack; raise ConformanceError saying how to get one."""
    found = find_generated(root, request)
    if found is None:
        raise ConformanceError(
            f"no pack of generated models in {root} with what is asked for ({request.words()}): "
            f"{why or 'it has not been built'}\nBuild it where TensorFlow is installed: "
            f"python -m conformance pack build {request.words()} --packs {root}"
        )
    return found


@contextmanager
def passing_pack(
    importer: str, models: Sequence[dict[str, Any]], files: Files, arrays: Files
) -> Iterator[GeneratedPack]:
    """Give a pack of some models that lasts as long as it is used.

    models: as in the manifest. files, arrays: by what FILES and ARRAYS call them.
    """
    with Scratch() as name:
        folder = Path(name)
        np.savez(folder / FILES, **files)
        np.savez(folder / ARRAYS, **arrays)
        manifest = Manifest("", "", len(models), SEED, [importer], {}, list(models))
        yield GeneratedPack(folder, manifest, len(models))
