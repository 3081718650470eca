"""A pack's frozen graph in another file format, for OpenCV's other importers. Needs NumPy only.

A conversion is a folder inside the pack's (`<pack>/tflite/`, `<pack>/onnx/`), so that the pack
itself stays as it is. It holds the model file, its own runtime's answers, and a manifest that says
which node of the frozen graph each tensor of the file equals. reference/convert.py makes it.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from conformance.errors import ConformanceError, install

from .format import GRAPH, Pack, array_file, file_problem, read_manifest
from .request import GRAPHS, json_digest, producer_versions
from .store import (
    TEMPORARY,
    disk_errors_explained,
    fsync,
    pack_lock,
    publish,
    remove_unfinished,
    removed_at_exit,
    sealed_files,
)

if TYPE_CHECKING:  # NumPy 1.19, as old as OpenCV 4.5.1 allows, has no NDArray
    from numpy.typing import NDArray

SCHEMA = 1
# Raised with every change that alters what is made from the same graph and versions.
RECIPE = "1"
MANIFEST = "conversion.json"
OUTPUTS = "outputs_f32"


@dataclass(frozen=True)
class Format:
    """A file format.

    file: the model's name. packages: what converts it besides TensorFlow. extra: of pip. batches:
    whether the file takes any number of images; else it takes one.
    """

    title: str
    file: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    batches: bool = True


# The importers that do not read the frozen graph itself. A new one is an entry here, its
# converter in reference/convert.py and its reader in opencv/net.py.
FORMATS = {
    "tflite": Format("TFLite", "model.tflite", batches=False),
    "onnx": Format("ONNX", "model.onnx", ("tf2onnx", "onnx", "onnxruntime"), "onnx"),
}


@dataclass
class ConversionManifest:
    """What a conversion's manifest says.

    graph: SHA-256 of the frozen graph it was made from. producer: versions of what converted it.
    input, output: tensors of the file. tensors: {"tensor", "layer", "node"} for each inner tensor
    that equals a node of the frozen graph, in the file's order; "layer" is the name of the
    operation that gives it, where the format has such names. strays: {"observed", "noise",
    "node"} of the tensor that the file's own runtime computes worst, as root mean squares.
    files: {name: {"sha256", "bytes"}}.
    """

    importer: str
    model: str
    graph: str
    producer: dict[str, str]
    input: str = ""
    output: str = ""
    tensors: list[dict[str, str]] = field(default_factory=list)
    strays: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversion:
    """An opened conversion, its files checked against the manifest's hashes."""

    path: Path
    manifest: ConversionManifest

    @property
    def model_path(self) -> Path:
        """The file OpenCV reads."""
        return self.path / FORMATS[self.manifest.importer].file

    def outputs(self, head: int = 0) -> NDArray[Any]:
        """Return what the file's own runtime answers to the pack's inputs, float32 [N, C].

        head: which of the model's outputs.
        """
        return np.asarray(np.load(self.path / array_file(OUTPUTS, head), allow_pickle=False))


def takes_batches(importer: str) -> bool:
    """Return whether what the importer reads takes any number of images at once."""
    return importer not in FORMATS or FORMATS[importer].batches


def converter_versions(importer: str, keras: str = "keras3") -> Optional[dict[str, str]]:
    """Return the versions that decide what a conversion is, None where a package is missing.

    Reads the metadata of installed packages only.
    """
    packs = producer_versions(keras)
    if packs is None:
        return None
    versions = {name: packs[name] for name in ("tensorflow", "numpy")}
    for name in FORMATS[importer].packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            return None
    return {**versions, "recipe": RECIPE}


def require_converter(importer: str, keras: str = "keras3") -> None:
    """Raise ConformanceError saying what to install where a conversion cannot be made."""
    if converter_versions(importer, keras) is None:
        entry = FORMATS[importer]
        extras = entry.extra if producer_versions(keras) else f"tensorflow,{entry.extra}".strip(",")
        raise ConformanceError(
            f"converting to {entry.title} needs what is not installed here ("
            f"{', '.join(('tensorflow', *entry.packages))}): "
            f"{install(extras)}, or give --packs a folder of "
            f"packs converted elsewhere"
        )


def locate_conversion(pack: Path, importer: str) -> Optional[Path]:
    """Return the folder of a conversion of the pack in folder `pack`, files unchecked, or None.

    One made from another graph, or without all of its outputs, does not count; nor, where the
    converter is installed, one by other versions of it. Raises ConformanceError for one whose
    manifest cannot be read.
    """
    folder = pack / importer
    if not folder.is_dir():
        return None
    manifest, whole = _read(folder), read_manifest(pack)
    installed = converter_versions(importer, whole.request["keras"])
    answered = {array_file(OUTPUTS, head) for head in range(max(1, len(whole.heads)))}
    current = manifest.graph == whole.files[GRAPH]["sha256"] and answered <= set(manifest.files)
    return folder if current and installed in (None, manifest.producer) else None


def find_conversion(pack: Pack, importer: str) -> Optional[Conversion]:
    """Return the checked conversion of `pack`, or None where there is none.

    Raises ConformanceError naming the file for one that is damaged.
    """
    folder = locate_conversion(pack.path, importer)
    return None if folder is None else open_conversion(folder)


def open_conversion(folder: Path) -> Conversion:
    """Return the conversion in `folder` after checking size and SHA-256 of every file.

    Raises ConformanceError naming the file that is missing, truncated or altered.
    """
    manifest = _read(folder)
    for name, expected in manifest.files.items():
        wrong = file_problem(folder / name, expected)
        if wrong:
            raise _damaged(folder / name, wrong)
    return Conversion(folder, manifest)


def require_conversion(pack: Pack, importer: str, why: str = "") -> Conversion:
    """Return the checked conversion of `pack`; raise ConformanceError saying how to make one."""
    found = find_conversion(pack, importer)
    if found is None:
        raise ConformanceError(
            f"no {FORMATS[importer].title} file of {pack.model} in {pack.path}: "
            f"{why or 'it has not been made'}\nMake it where TensorFlow is installed: "
            f"{build_command(pack.path, importer)}"
        )
    return found


def build_command(pack: Path, importer: str) -> str:
    """Return the command that makes a conversion of the pack in folder `pack`."""
    manifest = read_manifest(pack)
    request, registered = manifest.request, manifest.own is None
    weights = request["weights"] if registered else "synthetic"  # a user's model has its own
    options = f" --weights {weights}" if weights != "synthetic" else ""
    options += f" --graph {request['graph']}" if request["graph"] != GRAPHS[0] else ""
    return (
        f"python -m conformance pack build {request['model']} --importer {importer}{options} "
        f"--packs {pack.parent.parent}"
    )


def write_conversion(
    pack: Pack, importer: str, fill: Callable[[Path, ConversionManifest], None]
) -> Conversion:
    """Write a conversion into the pack's folder and return it, replacing one that is there.

    fill: writes the files into the folder it is given and completes the manifest. Nothing shows
    under the conversion's name before all is on disk. Takes the model's lock. Raises
    ConformanceError when the disk is full or a converter is missing.
    """
    require_converter(importer, pack.manifest.request["keras"])
    producer = converter_versions(importer, pack.manifest.request["keras"]) or {}
    graph = pack.manifest.files[GRAPH]["sha256"]
    manifest = ConversionManifest(importer, pack.model, graph, producer)
    manifest.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    temporary = pack.path / f"{TEMPORARY}{importer}-{uuid.uuid4().hex[:8]}"
    root = pack.path.parent.parent
    with disk_errors_explained(root, pack.model), pack_lock(root, pack.model):
        remove_unfinished(pack.path)
        with removed_at_exit(temporary):
            temporary.mkdir()
            fill(temporary, manifest)
            manifest.files = sealed_files(temporary)
            (temporary / MANIFEST).write_text(_text(manifest), encoding="utf-8")
            fsync(temporary / MANIFEST)
            publish(temporary, pack.path / importer)
    return Conversion(pack.path / importer, manifest)


def question(pack: Path, importer: str) -> str:
    """Return the digest of what OpenCV is asked by this pack, as Manifest.digest has it.

    For an importer that reads a conversion, of that file and the inputs.
    """
    manifest = read_manifest(pack)
    if importer not in FORMATS or not (pack / importer).is_dir():
        return manifest.digest()
    converted = _read(pack / importer).files[FORMATS[importer].file]["sha256"]
    asked = [converted, manifest.files["inputs.npy"]["sha256"]]
    return f"{manifest.key}:{json_digest(asked)[:16]}"


def _text(manifest: ConversionManifest) -> str:
    data = dataclasses.asdict(manifest)
    data["digest"] = json_digest(data)
    return json.dumps(data, indent=1) + "\n"


def _read(folder: Path) -> ConversionManifest:
    file = folder / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        digest = data.pop("digest", None)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise _damaged(file, f"cannot be read ({error})") from error
    if data.get("schema") != SCHEMA:
        raise ConformanceError(
            f"{file}: schema {data.get('schema')!r}, but this version reads schema {SCHEMA}; make "
            f"it again: {build_command(folder.parent, folder.name)} --force"
        )
    if digest != json_digest(data):
        raise _damaged(file, "differs from the digest it carries")
    known = {f.name for f in dataclasses.fields(ConversionManifest)}
    return ConversionManifest(**{name: value for name, value in data.items() if name in known})


def _damaged(file: Path, what: str) -> ConformanceError:
    folder = file.parent
    return ConformanceError(
        f"{file}: {what}. The conversion is damaged; make it again: "
        f"{build_command(folder.parent, folder.name)}"
    )
