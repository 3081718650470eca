"""A pack's frozen graph in another file format, for OpenCV's other importers. Needs NumPy only.

A conversion is a folder inside the pack's, such as `<pack>/onnx/`: the pack itself stays as it is.
It holds the model file, its own runtime's answers, and a manifest that says which node of the
frozen graph each tensor of the file equals. reference/formats/ makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from numpy.typing import NDArray

from conformance.errors import ConformanceError, install

from . import sealed
from .format import GRAPH, Manifest, Pack, array_file, read_manifest
from .formats import FORMATS, IMPORTERS
from .request import GRAPHS, installed, producer_versions, runtime_title
from .store import write_sealed

SCHEMA = 1
# Raised with every change that alters what is made from the same graph and versions.
RECIPE = "1"
MANIFEST = "conversion.json"
OUTPUTS = "outputs_f32"


@dataclass
class ConversionManifest:
    """What a conversion's manifest says."""

    importer: str
    model: str
    graph: str  # SHA-256 of the frozen graph it was made from
    # Versions of what converted it, and "runtime": what answered, such as "LiteRT 2.1"; of those
    # made before that was written, TensorFlow's interpreter or ONNX Runtime.
    producer: dict[str, str]
    input: str = ""  # a tensor of the file, as `output`
    output: str = ""
    # {"tensor", "layer", "node"} of each inner tensor that equals a node of the frozen graph, in
    # the file's order; "layer": the operation that gives it, where the format has such names.
    tensors: list[dict[str, str]] = field(default_factory=list)
    # Of the tensor that the file's own runtime computes worst: "tensor", "node", "observed" and
    # "allowed", as root mean squares; empty where no tensor is paired with a node.
    strays: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # {name: {"sha256", "bytes"}}


@dataclass(frozen=True)
class Conversion:
    """An opened conversion, its files checked against the manifest's hashes."""

    path: Path
    manifest: ConversionManifest

    @property
    def model_path(self) -> Path:
        """The file OpenCV reads."""
        return self.path / FORMATS[self.manifest.importer].file

    @property
    def runtime(self) -> str:
        """What answered for the file, as far as that is written."""
        usual = {"onnx": "ONNX Runtime", "tflite": "TensorFlow"}
        return self.manifest.producer.get("runtime") or usual.get(self.manifest.importer, "")

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
        version = installed((name,))
        if version is None:
            return None
        versions[name] = version
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
    # Another runtime says of the same file what this one would, within rounding.
    converter = {name: v for name, v in manifest.producer.items() if name != "runtime"}
    return folder if current and installed in (None, converter) else None


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
    sealed.check_files(CONVERSION, folder, manifest)
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


def file_of(
    pack: Pack, importer: str, conversion: Optional[Conversion] = None
) -> tuple[Path, list[dict[str, str]]]:
    """Return the file of `pack` that OpenCV's importer reads, and its tensors as in a conversion.

    conversion: the pack's file for the importer, from a caller that has checked it. Raises
    ConformanceError where there is none: nothing was converted, or the pack is of a file of another
    importer.
    """
    own = pack.manifest.importer
    if importer == own and own in FORMATS:
        return pack.graph_path, own_tensors(pack.manifest)
    check_importer(pack.model, own, importer)
    if importer not in FORMATS:
        return pack.graph_path, []
    conversion = conversion or require_conversion(pack, importer)
    return conversion.model_path, conversion.manifest.tensors


def own_tensors(manifest: Manifest) -> list[dict[str, str]]:
    """Return the tensors of a pack's own file as a conversion lists its own; none of a graph."""
    return [
        {"tensor": entry["node"], "layer": entry["layer"], "node": entry["node"]}
        for entry in (manifest.layers if manifest.importer in FORMATS else ())
    ]


def check_importer(model: str, own: str, importer: str) -> None:
    """Raise ConformanceError where a model's file is for the importer `own` and no other."""
    if own in FORMATS and importer != own:
        raise ConformanceError(
            f"{model} is judged as it stands, a{'n' * (own == 'onnx')} {FORMATS[own].title} file: "
            f"OpenCV's importer {own} reads it, and {importer} does not; leave --importer out or "
            f"give --importer {own}"
        )


def file_for(pack: Path, importer: str) -> Path:
    """Return where in the pack in folder `pack` the file is that `importer` reads; unchecked."""
    if importer not in FORMATS:
        return pack / GRAPH
    file = FORMATS[importer].file
    return pack / file if read_manifest(pack).importer == importer else pack / importer / file


def chosen_importer(pack: Path, offered: Sequence[str], images: int = 1) -> str:
    """Return the first of IMPORTERS that OpenCV offers and the pack in folder `pack` has a file of.

    Of a user's ONNX or TFLite file that is its own importer, if OpenCV offers it.

    images: how many are to be run at once. Raises ConformanceError saying how to make a file, or
    naming one that is damaged.
    """
    own = read_manifest(pack).importer
    if own in FORMATS and own in offered:
        return own
    fit = [n for n in IMPORTERS if n in offered and (images == 1 or takes_batches(n))]
    for name in fit:
        if name not in FORMATS:
            return name
        folder = locate_conversion(pack, name)
        if folder is not None:
            open_conversion(folder)
            return name
    together = f" of {images} images at once" if images > 1 else ""
    if not fit:
        raise ConformanceError(
            f"this OpenCV reads no file{together} that a pack can have, but "
            f"{', '.join(offered) or 'nothing'}: install one that has the importer "
            f"{' or '.join(IMPORTERS)}"
        )
    raise ConformanceError(
        f"this OpenCV has no importer for the frozen graph of {read_manifest(pack).model}, and the "
        f"pack no {' or '.join(FORMATS[name].title for name in fit)} file{together}. Make one "
        f"where TensorFlow is installed: {build_command(pack, fit[0])}"
    )


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
    producer["runtime"] = runtime_title(importer)
    graph = pack.manifest.files[GRAPH]["sha256"]
    manifest = ConversionManifest(importer, pack.model, graph, producer)
    manifest.created = sealed.now()
    target, root = pack.path / importer, pack.path.parent.parent
    write_sealed(CONVERSION, root, target, manifest, lambda folder: fill(folder, manifest))
    return Conversion(target, manifest)


def question(pack: Path, importer: str) -> str:
    """Return the digest of what OpenCV is asked by this pack, as Manifest.digest has it.

    For an importer that reads a conversion, of that file and the inputs.
    """
    manifest = read_manifest(pack)
    if importer not in FORMATS or not (pack / importer).is_dir():
        return manifest.digest()
    converted = _read(pack / importer).files[FORMATS[importer].file]["sha256"]
    asked = [converted, manifest.files["inputs.npy"]["sha256"]]
    return f"{manifest.key}:{sealed.json_digest(asked)[:16]}"


def _command(folder: Path) -> str:
    return build_command(folder.parent, folder.name)


CONVERSION = sealed.Kind("conversion", MANIFEST, ConversionManifest, SCHEMA, _command)


def _read(folder: Path) -> ConversionManifest:
    manifest: ConversionManifest = sealed.read_manifest(CONVERSION, folder)
    return manifest
