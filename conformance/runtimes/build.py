"""The pack of a file as it stands: its own runtime's answers, and how far they can be trusted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import ConformanceError, naming
from conformance.inputs.images import own_inputs
from conformance.own_models import OwnModel, check_format, image_shape
from conformance.pack.format import (
    LAYERS,
    PREPROCESSING,
    Manifest,
    Pack,
    array_file,
    new_manifest,
)
from conformance.pack.heads import Head, head_note
from conformance.pack.labels import write_labels
from conformance.pack.request import PackRequest, runtime_title, runtime_versions
from conformance.pack.store import write_pack

from . import RUNTIMES
from .answers import Answers, Reader, find_truth, root_mean_square, write_layers
from .file import (
    SAME_VALUES,
    UNCHANGED,
    Array,
    File,
    Tensor,
    behind,
)

Progress = Callable[[str], None]
_SQUEEZERS = {
    **dict.fromkeys(("Softmax", "SOFTMAX"), "softmax"),
    **dict.fromkeys(("Sigmoid", "LOGISTIC"), "sigmoid"),
}
# Without float64 a tensor may differ at least by this share of its root mean square, twice: a
# fault that matters changes it by a thousandth or more.
ROUGH = 2e-5


def build_file_pack(
    request: PackRequest, root: Path, progress: Progress = lambda step: None
) -> Pack:
    """Build the pack of a user's ONNX or TFLite file under `root`, replacing one there.

    progress: called with the name of each step as it starts. Raises ConformanceError naming the
    file, and what is wrong with it, or what has to be installed.
    """
    own, importer = request.own, request.importer
    assert own is not None
    assert own.path is not None
    producer = runtime_versions(importer)
    assert producer is not None
    made = new_manifest(request, producer, threads=os.cpu_count())
    manifest = replace(made, importer=importer)

    def fill(folder: Path) -> None:
        with naming(str(Path(own.path or "")), "model "):
            _Builder(folder, own, importer, manifest, progress).build()

    return write_pack(root, manifest, fill)


@dataclass(frozen=True)
class _Builder:
    folder: Path
    own: OwnModel
    importer: str
    manifest: Manifest
    progress: Progress

    def build(self) -> None:
        """Write all files of the pack but its manifest, and complete that."""
        path, manifest = Path(self.own.path or ""), self.manifest
        check_format(path)
        self.progress("reading the file")
        runtime = RUNTIMES[self.importer]
        file: File = runtime.describe(path)
        shutil.copyfile(path, self.folder / manifest.graph_file)
        batch, *sides = file.channels_last
        if batch not in (None, 1):
            raise ConformanceError(
                f"takes exactly {batch} images at once: export it for any number, or for one"
            )
        shape, notes = image_shape(self.own, sides)
        manifest.inputs, inputs = own_inputs(self.own.preprocess, shape[:2], shape[2])
        inputs = _in_whole_numbers(inputs, file.input)
        np.save(self.folder / "inputs.npy", inputs)
        np.savez(self.folder / PREPROCESSING)  # nobody says what Keras would have made of it
        manifest.own = {
            "file": path.name,
            "preprocess": self.own.preprocess.as_dict(),
            "input_shape": list(shape),
            "batch": batch,
            "layout": file.layout if self.importer == "onnx" else "NCHW",
        }
        heads, source = self._answer(runtime, file, inputs)
        manifest.heads = [asdict(head) for head in heads]
        manifest.rewrites = []  # the file is judged as it stands
        first = heads[0]
        manifest.tensors = {
            "input": file.input.name,
            "logits": first.logits,
            "output": first.output,
        }
        manifest.winograd = file.winograd
        single = ["the file takes one image at a time: no batch is judged"] if batch else []
        known = f"{path.name} is judged as it stands: what it was made of is not known, nor, but "
        known += "by --model-preprocess and --model-labels, how its inputs are made and what its "
        known += "classes are called"
        manifest.notes = [known, *notes, *single, *file.notes, *map(head_note, heads), *source]
        if self.own.labels is not None:
            write_labels(self.folder, Path(self.own.labels), self.own.name, heads)

    def _answer(self, runtime: Any, file: File, inputs: Array) -> tuple[list[Head], list[str]]:
        """Write every answer; return the heads, and how the truth was made."""
        path, settings = self.folder / self.manifest.graph_file, runtime.SETTINGS
        title = runtime_title(self.importer)
        self.progress(f"{title}: {settings[0].name}")
        first = next(iter(runtime.run(path, inputs[:1], True, settings[0])))
        reader = Reader(self.importer, file, _heads(file, first), inputs)
        plain = reader.read(runtime.run, path, settings[0])
        _check_finite(plain, title)
        found = {settings[0].name: plain}
        for setting in settings[1:]:
            self.progress(f"{title}: {setting.name}")
            found[setting.name] = reader.read(runtime.run, path, setting)
        usual = found[settings[-1].name]
        self.progress("float64")
        truth = find_truth(reader, found, path)
        for name, answers in (("f32", plain), ("f64", truth.answers)):
            self._save("outputs", name, answers.outputs)
            self._save("logits", name, answers.logits)
        self._save("frozen", "f32", usual.outputs)
        entries = write_layers(self.folder / LAYERS, file, plain, truth.answers)
        self.manifest.layers = (
            entries if truth.exact else [_rough(e, truth.answers) for e in entries]
        )
        return reader.heads, [truth.said]

    def _save(self, what: str, kind: str, columns: Sequence[Array]) -> None:
        for number, values in enumerate(columns):
            np.save(self.folder / array_file(f"{what}_{kind}", number), values)


def _in_whole_numbers(inputs: Array, image: Tensor) -> Array:
    """Return the inputs as the file takes them: float32, or by its scale whole numbers."""
    if not image.step:
        return inputs
    limits = np.iinfo(image.dtype)
    numbers = np.round(inputs / image.step) + image.zero
    return np.clip(numbers, limits.min, limits.max).astype(image.dtype)


def _check_finite(plain: Answers, title: str) -> None:
    if not all(np.isfinite(values).all() for values in plain.outputs):
        raise ConformanceError(
            f"{title} gives outputs that are not finite on the suite's images: say how its inputs "
            "are made (--model-preprocess)"
        )


def _heads(file: File, first: Any) -> list[Head]:
    """Return the outputs that are judged. first: what the first image gave."""
    results, inner = first
    by_tensor = {operation.tensor: operation for operation in file.operations}
    whole = file.tensors
    heads: dict[str, Head] = {}
    for tensor, value in zip(file.outputs, results):
        if value.dtype != np.float32:
            raise ConformanceError(
                f"output {tensor.name!r} is {value.dtype}: expected float32, or whole numbers with "
                "a scale"
            )
        if value.ndim < 2 or len(value) != 1:
            raise ConformanceError(
                f"output {tensor.name!r} has the shape {list(value.shape)} for one image: expected "
                "a row, or a map, for each image"
            )
        output = behind(by_tensor, tensor.name, UNCHANGED)
        squeezed = behind(by_tensor, output, (*SAME_VALUES, "DEQUANTIZE", "QUANTIZE"))
        step = next((whole[n] for n in (output, squeezed) if n in whole), None)
        shape = tuple(value.shape[1:])
        kind, logits = "values", output
        if squeezed in by_tensor and step is None:
            operation = by_tensor[squeezed]
            source = inner.get(operation.inputs[0])
            if source is not None and source.ndim == 2 and sum(side > 1 for side in shape) <= 1:
                kind = _SQUEEZERS.get(operation.kind, kind)
                logits = operation.inputs[0] if kind != "values" else output
        head = Head(tensor.name, output, logits, kind, shape)
        if step is not None:
            # In whole numbers it does not sum to 1, and nothing finer lies before it.
            at_end = whole.get(tensor.name)
            head = replace(head, step=step.step, zero=at_end.zero if at_end else 0)
        heads.setdefault(output, head)
    return list(heads.values())


def _rough(entry: dict[str, Any], truth: Answers) -> dict[str, Any]:
    """Return a layer's entry where there is no float64 of it: no finer than some roundings.

    Several ways to run a file often agree in every bit of a tensor, which says nothing of how far
    another order of summation would take it.
    """
    least = ROUGH * root_mean_square(truth.samples[entry["node"]])
    return {**entry, "step": max(least, entry.get("step", 0.0))}
