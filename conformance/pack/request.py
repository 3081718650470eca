"""What a pack is a pack of: the request, the versions that built it, and the key of both.

Imports no TensorFlow: versions come from the metadata of the installed distributions.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Optional

from conformance.errors import ConformanceError, os_errors
from conformance.fixtures import fixture_path
from conformance.models import get_model
from conformance.own_models import OwnModel

from .formats import FORMATS, TENSORFLOW, TITLES
from .sealed import file_digest, json_digest

SCHEMA = 1
# Raised with every change that alters what is built from the same request and versions.
RECIPE = "4"
# The same of a file that its own runtime answers for.
FILE_RECIPE = "1"

# The frozen graph after the passes, after those and the rewrites, or as the tutorial freezes it.
GRAPHS = ("opencv", "rewritten", "raw")
# What a manifest says of a file that is neither converted nor changed.
AS_IT_IS = "file"
KERAS_FLAVOURS = ("keras3", "legacy")
NAMED_WEIGHTS = ("synthetic", "imagenet")
WEIGHT_SUFFIXES = (".weights.h5", ".h5", ".keras")

_KERAS = {"keras3": ("keras", "keras-nightly"), "legacy": ("tf_keras", "tf_keras-nightly")}


@dataclass(frozen=True)
class PackRequest:
    """What the user asks for.

    model: name in the registry. weights: "synthetic", "imagenet", or the path of a weights file
    or of a folder that holds ``<model>.weights.h5``, ``.h5`` or ``.keras``. graph: "opencv" (the
    passes applied), "rewritten" (the rewrites too) or "raw" (the tutorial's recipe). keras:
    "keras3" or "legacy" (tf_keras). own: a model of the user's, whose name `model` is and whose
    file is the weights.
    """

    model: str
    weights: str = "synthetic"
    graph: str = "opencv"
    keras: str = "keras3"
    own: Optional[OwnModel] = None

    def __post_init__(self) -> None:
        if self.own is None:
            get_model(self.model)
        _check_choice("graph", self.graph, GRAPHS)
        _check_choice("keras", self.keras, KERAS_FLAVOURS)

    @property
    def importer(self) -> str:
        """OpenCV's importer of what the pack is of: the frozen graph, or a file as it stands."""
        return "tensorflow" if self.own is None else self.own.importer


def _check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConformanceError(f"{option} {value!r} is not one of {', '.join(allowed)}")


def weights_file(request: PackRequest) -> Optional[Path]:
    """Return the user's weights file, or None for "synthetic", "imagenet" and digests.

    Raises ConformanceError naming the path when there is none.
    """
    if request.own is not None:
        return Path(request.own.path) if request.own.path else None
    if request.weights in NAMED_WEIGHTS or request.weights.startswith("sha256:"):
        return None
    path = Path(request.weights).expanduser()
    if path.is_file():
        return path
    candidates = [path / (request.model + suffix) for suffix in WEIGHT_SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not path.is_dir():
        raise ConformanceError(
            f"weights {str(path)!r}: no such file or folder; give 'synthetic', 'imagenet' or the "
            f"path of a folder with {', '.join(c.name for c in candidates)}"
        )
    raise ConformanceError(
        f"weights of {request.model}: {path} has none of {', '.join(c.name for c in candidates)}"
    )


def weights_identity(request: PackRequest) -> str:
    """Return "synthetic", "imagenet" or "sha256:<hex>" of the user's weights file.

    A weights string that already is such a digest is returned as it is, so that a pack built
    elsewhere can be asked for without the file. Raises ConformanceError for a missing file.
    """
    path = weights_file(request)
    if path is None:
        return request.weights
    return "sha256:" + (_folder_digest(path) if path.is_dir() else _known_digest(path))


def _folder_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a SavedModel's files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return json_digest({file.relative_to(folder).as_posix(): _known_digest(file) for file in files})


def _known_digest(path: Path) -> str:
    with os_errors(f"{path}: can't be read"):
        stat = path.stat()
        return _cached_digest(os.path.realpath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _cached_digest(path: str, _size: int, _mtime_ns: int) -> str:
    return file_digest(Path(path))


def describe_request(request: PackRequest) -> dict[str, str]:
    """Return the request as a pack records it: the weights by identity, never by path."""
    described = {
        "model": request.model,
        "weights": weights_identity(request),
        "graph": request.graph,
        "keras": request.keras,
    }
    if request.importer in FORMATS:  # judged as it stands, and no Keras behind it
        described.update(graph=AS_IT_IS, keras="")
    return described if request.own is None else {**described, **_describe_own(request.own)}


def _describe_own(own: OwnModel) -> dict[str, str]:
    return {
        "preprocess": json.dumps(own.preprocess.as_dict(), sort_keys=True),
        "labels": "sha256:" + _known_digest(Path(own.labels)) if own.labels else "",
        "size": "x".join(map(str, own.size or ())),
        "outputs": " ".join(own.outputs),
    }


def keras_flavour() -> str:
    """Return "legacy" where TF_USE_LEGACY_KERAS asks TensorFlow for tf_keras, else "keras3"."""
    legacy = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")
    return "legacy" if legacy else "keras3"


def producer_versions(flavour: str = "keras3") -> Optional[dict[str, str]]:
    """Return the versions that decide what is built, or None where they are not installed.

    Keys: "tensorflow", "keras" (of tf_keras for "legacy"), "numpy", "recipe". Reads metadata only.
    """
    tensorflow = installed(TENSORFLOW)
    keras = installed(_KERAS[flavour])
    numpy = installed(("numpy",))
    if tensorflow is None or keras is None or numpy is None:
        return None
    return {"tensorflow": tensorflow, "keras": keras, "numpy": numpy, "recipe": RECIPE}


def runtime_versions(importer: str) -> Optional[dict[str, str]]:
    """Return the versions that decide what is said of a file, or None where they are not installed.

    Keys: the distributions of its runtime, the one that answers first, "numpy" and "recipe".
    """
    versions: dict[str, str] = {}
    for group in (*FORMATS[importer].runtime, ("numpy",)):
        found = [(name, version) for name in group if (version := installed((name,)))]
        if not found:
            return None
        versions.update(found[:1])
    return {**versions, "recipe": FILE_RECIPE}


def runtime_title(importer: str) -> str:
    """Return name and version of what runs files of `importer` here, such as "LiteRT 2.1"."""
    versions = runtime_versions(importer)
    assert versions is not None
    name, version = next(iter(versions.items()))
    return f"{TITLES[name]} {version}"


def request_versions(request: PackRequest) -> Optional[dict[str, str]]:
    """Return the versions that decide what is built of `request`, None where they are missing."""
    if request.importer in FORMATS:
        return runtime_versions(request.importer)
    return producer_versions(request.keras)


def built_with(request: PackRequest) -> str:
    """Return the name of what builds the pack of `request`."""
    if request.importer not in FORMATS:
        return "TensorFlow"
    return " or ".join(dict.fromkeys(TITLES[n] for n in FORMATS[request.importer].runtime[0]))


def installed(distributions: tuple[str, ...]) -> Optional[str]:
    """Return the version of the first of some distributions that is there, None where none is."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


@lru_cache(maxsize=1)
def photo_digests() -> dict[str, str]:
    """Return {file name: SHA-256} of the committed photos, which calibration and inputs use."""
    photos = sorted(fixture_path("images").glob("*.jpg"))
    return {photo.name: file_digest(photo) for photo in photos}


def pack_key(request: PackRequest, producer: dict[str, str]) -> str:
    """Return the 16 hex digits that name the pack of `request` built by `producer`."""
    everything = {
        "schema": SCHEMA,
        "request": describe_request(request),
        "producer": producer,
        "photos": photo_digests(),
    }
    return json_digest(everything)[:16]
