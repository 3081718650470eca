"""A reference pack on disk: the manifest, the arrays, and the checks made before either is used."""

from __future__ import annotations

import platform
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from conformance.inputs.preprocessing import Preprocessing, get_mode, preprocessing_from
from conformance.models import get_model
from conformance.processes.machine import cpu_name

from . import sealed
from .formats import FORMATS
from .request import SCHEMA, PackRequest, describe_request, pack_key
from .sampling import node_seed, sample_positions

MANIFEST = "pack.json"
GRAPH = "frozen_graph.pb"
LAYERS = "layers.npz"
PREPROCESSING = "preprocessing.npz"
LABELS = "labels.txt"
ARRAYS = (
    "inputs.npy",
    "outputs_f32.npy",
    "outputs_f64.npy",
    "logits_f32.npy",
    "logits_f64.npy",
    "frozen_f32.npy",
)
COMMON_FILES = (*ARRAYS, LAYERS, PREPROCESSING)
REQUIRED_FILES = (GRAPH, *COMMON_FILES)


@dataclass
class Manifest:
    """What pack.json says."""

    model: str
    key: str
    created: str  # UTC
    request: dict[str, str]  # model, weights (identity), graph, keras; an own model's choices
    producer: dict[str, str]  # the versions in the key
    tensors: dict[str, str]  # "input", "logits" and "output": node names of frozen_graph.pb
    inputs: list[str]  # a name for each of the N inputs
    passes: list[dict[str, Any]] = field(default_factory=list)  # {"name", "found", "nodes"} of each
    # {"node", "op", "inputs", "shape"} of each sampled node, in topological order. Of a file as it
    # stands also "layer", the operation's own name, and "step" and "zero" of whole numbers.
    layers: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(
        default_factory=dict
    )  # python, cpu, threads, for the record
    layout: str = "NHWC"
    schema: int = SCHEMA
    rewrites: Optional[list[str]] = None  # that fit this graph and were not made; None: not known
    winograd: Optional[int] = None  # convolutions OpenCV may run as Winograd's; None: not known
    # OpenCV's importer of the pack's own file: its frozen graph, or a user's ONNX or TFLite file.
    importer: str = "tensorflow"
    # Of a user's own model: its "file", "preprocess", "input_shape" [H, W, C], and "batch", the
    # only number of images its graph takes, None where it takes any. Of an ONNX file also "layout".
    own: Optional[dict[str, Any]] = None
    # Of each output of an own model "name", "output" and "logits" (nodes), "kind" (softmax, sigmoid
    # or values) and "shape" of one image's, NHWC.
    heads: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is judged otherwise than usual, and why
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # {name: {"sha256", "bytes"}}

    @property
    def graph_file(self) -> str:
        """The name of the pack's own file, which OpenCV reads."""
        return FORMATS[self.importer].file if self.importer in FORMATS else GRAPH

    @property
    def input_layout(self) -> str:
        """How the pack's own file takes images: "NHWC" or, as OpenCV's blobs are, "NCHW"."""
        return str((self.own or {}).get("layout", "NCHW"))

    def digest(self) -> str:
        """Return the key and a digest of what OpenCV is given, the graph and the inputs.

        TensorFlow's own float32 outputs are left out: they differ from machine to machine in the
        last bits, and the same question put to OpenCV stays the same question.
        """
        asked = [self.files[name]["sha256"] for name in (self.graph_file, "inputs.npy")]
        return f"{self.key}:{sealed.json_digest(asked)[:16]}"


def new_manifest(
    request: PackRequest,
    producer: dict[str, str],
    tensors: Optional[dict[str, str]] = None,
    inputs: Sequence[str] = (),
    threads: Optional[int] = None,
) -> Manifest:
    """Return the manifest of a pack about to be written, with key and time of creation (UTC).

    threads: that it is built on. What is still empty, `fill` of write_pack may complete.
    """
    machine = {"python": platform.python_version(), "cpu": cpu_name(), "threads": threads}
    return Manifest(
        model=request.model,
        key=pack_key(request, producer),
        created=sealed.now(),
        request=describe_request(request),
        producer=producer,
        tensors=tensors or {},
        inputs=list(inputs),
        environment=machine,
    )


def _command(folder: Path) -> str:
    root, model = folder.parent.parent, folder.parent.name
    return f"python -m conformance pack build {model} --packs {root} --force"


PACK = sealed.Kind("pack", MANIFEST, Manifest, SCHEMA, _command)


@dataclass(frozen=True)
class Layer:
    """One node of the frozen graph with its sampled activations.

    shape: [N, ...] of the whole activation, NHWC, N the number of inputs SAMPLED. f32, f64:
    [S + 2 N], TensorFlow's values at ``positions()`` of the activation flattened in C order, then
    the greatest value of each image and the least of each.
    """

    node: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    f32: NDArray[Any]
    f64: NDArray[Any]
    step: float = 0.0  # the scale of a node that holds whole numbers

    def positions(self) -> NDArray[np.int64]:
        """Return the int64 [S] flat positions that were sampled."""
        return sample_positions(self.shape, node_seed(self.node))


@dataclass(frozen=True)
class Pack:
    """An opened pack, its files checked against the manifest's hashes.

    head: which of the model's outputs ``load`` gives the arrays of.
    """

    path: Path
    manifest: Manifest
    head: int = 0

    @property
    def model(self) -> str:
        """The model's name: in the registry, or the user's own."""
        return self.manifest.model

    def heads(self) -> list[Pack]:
        """Return the pack as each of the model's outputs sees it; most models have one."""
        return [replace(self, head=n) for n in range(max(1, len(self.manifest.heads)))]

    @property
    def values(self) -> Optional[int]:
        """How many values the model answers an image, None where it has several outputs."""
        outputs = self.load("outputs_f32")
        return outputs.size // len(outputs) if len(self.manifest.heads) < 2 else None

    @property
    def kind(self) -> str:
        """What the output is: "softmax", "sigmoid" or "values"."""
        return str(self.manifest.heads[self.head]["kind"]) if self.manifest.heads else "softmax"

    @property
    def output_name(self) -> str:
        """The output's name where the model has several, else empty."""
        heads = self.manifest.heads
        return str(heads[self.head]["name"]) if len(heads) > 1 else ""

    @property
    def step(self) -> float:
        """The scale of an output that holds whole numbers, 0 of plain floating point."""
        heads = self.manifest.heads
        return float(heads[self.head].get("step", 0.0)) if heads else 0.0

    @property
    def output_shape(self) -> Optional[list[int]]:
        """The shape of one image's output, NHWC; None where it is a row of classes."""
        return list(self.manifest.heads[self.head]["shape"]) if self.manifest.heads else None

    @property
    def is_map(self) -> bool:
        """Whether the output is a map of values, such as a segmentation, and no row of classes."""
        return sum(side > 1 for side in self.output_shape or ()) > 1

    @property
    def takes_batches(self) -> bool:
        """Whether the graph takes several images at once."""
        return self.manifest.own is None or self.manifest.own["batch"] is None

    def preprocessing(self) -> Preprocessing:
        """Return how a picture becomes the model's input, the input's size with it."""
        shape = np.load(self.path / "inputs.npy", mmap_mode="r", allow_pickle=False).shape
        own = self.manifest.own
        made = (
            preprocessing_from(own["preprocess"]) if own else get_mode(get_model(self.model).mode)
        )
        return replace(made, size=(shape[1], shape[2]), grey=shape[3] == 1)

    def labels(self) -> Optional[list[str]]:
        """Return the names of an own model's classes, None of a model of the registry.

        There are none where nobody gave any, or where they are those of another output.
        """
        if self.manifest.own is None:
            return None
        if LABELS not in self.manifest.files:
            return []
        names = (self.path / LABELS).read_text(encoding="utf-8").splitlines()
        return names if len(names) == self.load("outputs_f32").shape[-1] else []

    @property
    def graph_path(self) -> Path:
        """The pack's own file, which OpenCV reads: the frozen graph, of most."""
        return self.path / self.manifest.graph_file

    def load(self, name: str) -> NDArray[Any]:
        """Return one array, such as "inputs" or "outputs_f64".

        Raises ConformanceError when the file is missing, is not an array or holds a pickle.
        """
        return np.asarray(_read_numpy(self.path / array_file(name, self.head)))

    def load_archive(self, file: str) -> dict[str, NDArray[Any]]:
        """Return all arrays of one .npz file."""
        return dict(_read_numpy(self.path / file))

    def layers(self) -> Iterator[Layer]:
        """Yield the sampled nodes in topological order."""
        arrays = self.load_archive(LAYERS)
        for index, entry in enumerate(self.manifest.layers):
            try:
                f32, f64 = arrays[f"{index}_f32"], arrays[f"{index}_f64"]
            except KeyError as error:
                raise PACK.damaged(
                    self.path / LAYERS, f"no array {error} ({entry['node']})"
                ) from None
            shape, inputs = tuple(entry["shape"]), tuple(entry["inputs"])
            step = entry.get("step", 0.0)
            yield Layer(entry["node"], entry["op"], inputs, shape, f32, f64, step)


def array_file(name: str, head: int = 0) -> str:
    """Return the file of an array, such as "outputs_f32", of the model's output number `head`."""
    return f"{name}_{head}.npy" if head and name != "inputs" else f"{name}.npy"


def _read_numpy(file: Path) -> Any:
    try:
        loaded = np.load(file, mmap_mode=None, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        return loaded
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise PACK.damaged(file, str(error)) from error


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the pack folder `path` without checking the pack's other files.

    Raises ConformanceError for a missing or damaged pack.json and for a newer schema.
    """
    manifest: Manifest = sealed.read_manifest(PACK, path)
    required = (manifest.graph_file, *COMMON_FILES)
    missing = [name for name in required if name not in manifest.files]
    if missing:
        raise PACK.damaged(path / MANIFEST, f"lists no {', '.join(missing)}")
    return manifest


def open_pack(path: Path) -> Pack:
    """Return the pack in folder `path` after checking schema, size and SHA-256 of every file.

    Raises ConformanceError naming the file that is missing, truncated or altered.
    """
    manifest = read_manifest(path)
    sealed.check_files(PACK, path, manifest)
    return Pack(path, manifest)
