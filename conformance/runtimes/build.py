"""The pack of a file as it stands: its own runtime's answers, and how far they can be trusted."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.inputs.images import own_inputs
from conformance.own_models import OwnModel, check_format, image_shape
from conformance.pack.format import (
    LABELS,
    LAYERS,
    PREPROCESSING,
    Manifest,
    Pack,
    array_file,
    new_manifest,
)
from conformance.pack.heads import Head, head_note
from conformance.pack.labels import label_lines
from conformance.pack.request import PackRequest, runtime_title, runtime_versions
from conformance.pack.sampling import SAMPLED, node_seed, sampled_values
from conformance.pack.store import write_pack
from conformance.processes.machine import cpu_name
from conformance.verdict.metrics import l1_sum
from conformance.verdict.tolerance import noise_floor

from . import RUNTIMES
from .file import (
    SAME_VALUES,
    UNCHANGED,
    Array,
    File,
    Operation,
    Setting,
    Tensor,
    Unsupported,
    behind,
    channels_last,
)

Progress = Callable[[str], None]
_SQUEEZERS = {
    **dict.fromkeys(("Softmax", "SOFTMAX"), "softmax"),
    **dict.fromkeys(("Sigmoid", "LOGISTIC"), "sigmoid"),
}
# Float64 is taken for the truth where no tensor differs by more than this share of its root mean
# square from the runtime's float32. Rounding comes to 1e-7 to 1e-4, a wrong operation to its size.
AGREES = 0.01
_TINY = float(np.finfo(np.float32).tiny)
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
    made_by = {"python": platform.python_version(), "cpu": cpu_name(), "threads": os.cpu_count()}
    manifest = replace(new_manifest(request, producer, {}, [], made_by), importer=importer)

    def fill(folder: Path) -> None:
        with _named(Path(own.path or "")):
            _Builder(folder, own, importer, manifest, progress).build()

    return write_pack(root, manifest, fill)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have an error name the file."""
    try:
        yield
    except ConformanceError as error:
        text = str(error)
        raise ConformanceError(text if str(path) in text else f"model {path}: {text}") from error


@dataclass(frozen=True)
class Answers:
    """What a way to run the file gave. outputs, logits: of each head [N, C].

    samples: {tensor: [S + 2 N]} of the inputs SAMPLED, as pack/sampling.py has it; shapes: {tensor:
    [N, ...]} of the whole, NHWC.
    """

    outputs: list[Array]
    logits: list[Array]
    samples: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]


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
        first = heads[0]
        manifest.tensors = {
            "input": file.input.name,
            "logits": first.logits,
            "output": first.output,
        }
        manifest.winograd = file.winograd
        single = ["the file takes one image at a time: no batch is judged"] if batch else []
        known = f"{path.name} is judged as it stands; what it was made of is not known, nor, but "
        known += "for what is said here, how its inputs are to be made"
        manifest.notes = [known, *notes, *single, *file.notes, *map(head_note, heads), *source]
        self._write_labels(heads)

    def _answer(self, runtime: Any, file: File, inputs: Array) -> tuple[list[Head], list[str]]:
        """Write every answer; return the heads, and how the truth was made."""
        path, settings = self.folder / self.manifest.graph_file, runtime.SETTINGS
        title = runtime_title(self.importer)
        self.progress(f"{title}: {settings[0].name}")
        first = next(iter(runtime.run(path, inputs[:1], True, settings[0])))
        reader = Reader(self.importer, file, _heads(file, first, self.importer), inputs)
        plain = reader.read(runtime.run, path, settings[0])
        _check_finite(plain, title)
        found = {settings[0].name: plain}
        for setting in settings[1:]:
            self.progress(f"{title}: {setting.name}")
            found[setting.name] = reader.read(runtime.run, path, setting)
        usual = found[settings[-1].name]
        truth, source, exact = self._truth(runtime, reader, found, title)
        for name, answers in (("f32", plain), ("f64", truth)):
            self._save("outputs", name, answers.outputs)
            self._save("logits", name, answers.logits)
        self._save("frozen", "f32", usual.outputs)
        entries = write_layers(self.folder / LAYERS, file, plain, truth)
        self.manifest.layers = entries if exact else [_rough(e, truth) for e in entries]
        return reader.heads, source

    def _truth(
        self, runtime: Any, reader: Reader, found: dict[str, Answers], title: str
    ) -> tuple[Answers, list[str], bool]:
        """Return what is taken for the truth, how it was made, and whether it is exact."""
        names = list(found)
        plain = found[names[0]]
        if any(head.step for head in reader.heads):
            return plain, [f"truth: {title}, {names[0]}"], True
        self.progress("float64")
        settings = {setting.name: setting for setting in runtime.SETTINGS}
        try:
            double = reader.read(runtime.double, self.folder / self.manifest.graph_file)
            differing = _disagreement(plain, double, runtime.DOUBLE)
        except Unsupported as error:
            differing = str(error)
        if not differing:
            return (
                double,
                [
                    f"truth: {runtime.DOUBLE} in float64, which agrees with {title} in each "
                    f"of {len(plain.samples)} tensors; noise: {title}, {names[0]}"
                    + _others(found, double)
                ],
                True,
            )
        several = _distinct([found[name] for name in names if settings[name].inner])
        why = f"truth: mean of {len(several)} differing answers of {title} ("
        why += f"{'; '.join(name for name in names if settings[name].inner)}), as there is no "
        truth = _mean(several)
        return truth, [f"{why}float64: {differing}{_others(found, truth)}"], False

    def _save(self, what: str, kind: str, columns: Sequence[Array]) -> None:
        for number, values in enumerate(columns):
            np.save(self.folder / array_file(f"{what}_{kind}", number), values)

    def _write_labels(self, heads: Sequence[Head]) -> None:
        if self.own.labels is None:
            return
        sizes = {head.name: int(np.prod(head.shape)) for head in heads}
        has = ", ".join(f"{size} of output {name!r}" for name, size in sizes.items())
        has = f"{self.own.name} has {has}"
        labels = label_lines(Path(self.own.labels), sizes.values(), has)
        (self.folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")


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


def _heads(file: File, first: Any, importer: str) -> list[Head]:
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


@dataclass(frozen=True)
class Reader:
    """Reads the answers of all inputs, one by one, and samples of inner tensors."""

    importer: str
    file: File
    heads: list[Head]
    inputs: Array

    def read(self, run: Any, path: Path, setting: Optional[Setting] = None) -> Answers:
        """Return the answers of `run`: a runtime's in a setting, or its float64 without one."""
        kept = range(len(self.inputs))[SAMPLED]
        wanted = {operation.tensor for operation in self.file.dependents()}
        ends = {name for head in self.heads for name in (head.output, head.logits, head.name)}
        each = self._double(run, path) if setting is None else self._single(run, path, setting)
        rows: list[dict[str, Array]] = []
        inside: dict[str, list[Array]] = {}
        for index, values in enumerate(each):
            rows.append({name: values[name] for name in ends & values.keys()})
            for name in wanted & values.keys() if index in kept else ():
                inside.setdefault(name, []).append(values[name])
        samples, shapes = _sampled(inside)
        return Answers(
            [_column(rows, head.output, head.name) for head in self.heads],
            [_column(rows, head.logits, head.name) for head in self.heads],
            samples,
            shapes,
        )

    def _single(self, run: Any, path: Path, setting: Setting) -> Iterator[dict[str, Array]]:
        """Yield {tensor: value}, NHWC, of each image; outputs only where no more can be read."""
        names = [tensor.name for tensor in self.file.outputs]
        for results, inner in run(path, self.inputs, setting.inner, setting):
            last = {name: channels_last(value, self.importer) for name, value in inner.items()}
            yield {**last, **dict(zip(names, results))}

    def _double(self, run: Any, path: Path) -> Iterator[dict[str, Array]]:
        for inner in run(path, self.inputs):
            yield {name: channels_last(value, self.importer) for name, value in inner.items()}


def _column(rows: Sequence[dict[str, Array]], tensor: str, end: str) -> Array:
    """Return [N, C] of a tensor, or of the output that it leads to where it can't be read."""
    values = (row[tensor] if tensor in row else row[end] for row in rows)
    return np.concatenate([value.reshape(1, -1) for value in values])


def _sampled(
    inside: dict[str, list[Array]],
) -> tuple[dict[str, Array], dict[str, tuple[int, ...]]]:
    """Return the samples, and the shapes, of the tensors that hold floating point numbers.

    A tensor whose first axis is not the image's has one for it put before.
    """
    samples, shapes = {}, {}
    for name, values in inside.items():
        first = values[0]
        if first.dtype.kind != "f" or first.ndim == 0:
            continue
        if any(value.shape != first.shape for value in values):
            continue
        images = [value if len(value) == 1 and value.ndim > 1 else value[None] for value in values]
        whole = np.concatenate(images)
        shapes[name] = whole.shape
        samples[name] = sampled_values(whole, node_seed(name))
    return samples, shapes


def _disagreement(plain: Answers, double: Answers, who: str) -> str:
    """Return which tensor float64 computes otherwise, in words; empty where none."""
    for name, samples in plain.samples.items():
        other = double.samples.get(name)
        if other is None or other.shape != samples.shape:
            return f"{who} gives no {name!r} of that shape"
        strayed, size = _rms(samples - other), _rms(other)
        if not strayed <= AGREES * max(size, _TINY):
            return (
                f"{who} computes {name!r} otherwise (root mean square "
                f"{strayed:.2g} apart, of {size:.2g})"
            )
    return ""


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def _others(found: dict[str, Answers], truth: Answers) -> str:
    """Return in words how far the other settings stray, in noise floors of the first."""
    plain, *others = found.values()
    ratios = [
        float(np.max(_ratio(one, single, double)))
        for other in others
        for one, single, double in zip(other.outputs, plain.outputs, truth.outputs)
    ]
    return f"; at its other settings up to {max(ratios):.1f} times that"


def _ratio(other: Array, plain: Array, truth: Array) -> Array:
    """Return how far another setting strays on each input, in noise floors, if there is any."""
    noise, strayed = noise_floor("output_l1_sum", plain, truth), l1_sum(other, truth)
    return np.divide(strayed, noise, out=np.zeros_like(noise), where=noise > 0)


def _distinct(answers: Sequence[Answers]) -> list[Answers]:
    """Return the answers whose outputs differ in a bit."""
    found: dict[bytes, Answers] = {}
    for one in answers:
        found.setdefault(b"".join(values.tobytes() for values in one.outputs), one)
    return list(found.values())


def _mean(answers: Sequence[Answers]) -> Answers:
    """Return the mean in float64 of what several ways to run the file gave."""

    def mean(values: Sequence[Array]) -> Array:
        return np.asarray(np.mean([value.astype(np.float64) for value in values], axis=0))

    first = answers[0]
    return Answers(
        [mean(values) for values in zip(*(one.outputs for one in answers))],
        [mean(values) for values in zip(*(one.logits for one in answers))],
        {name: mean([one.samples[name] for one in answers]) for name in first.samples},
        first.shapes,
    )


def write_layers(path: Path, file: File, plain: Answers, truth: Answers) -> list[dict[str, Any]]:
    """Write the samples of the file's tensors; return their entries of the manifest."""
    entries: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for operation in file.dependents():
        name = operation.tensor
        if name not in plain.samples or operation.kind in UNCHANGED:
            continue
        arrays[f"{len(entries)}_f32"] = plain.samples[name]
        arrays[f"{len(entries)}_f64"] = truth.samples[name].astype(np.float64)
        entries.append(_entry(operation, file, plain.shapes[name]))
    np.savez(path, **arrays)
    return entries


def _rough(entry: dict[str, Any], truth: Answers) -> dict[str, Any]:
    """Return a layer's entry where there is no float64 of it: no finer than some roundings.

    Several ways to run a file often agree in every bit of a tensor, which says nothing of how far
    another order of summation would take it.
    """
    least = ROUGH * _rms(truth.samples[entry["node"]])
    return {**entry, "step": max(least, entry.get("step", 0.0))}


def _entry(operation: Operation, file: File, shape: tuple[int, ...]) -> dict[str, Any]:
    by_tensor = {one.tensor: one for one in file.operations}
    inputs = [behind(by_tensor, name, UNCHANGED) for name in operation.inputs]
    entry: dict[str, Any] = {
        "node": operation.tensor,
        "op": operation.kind,
        "inputs": inputs,
        "shape": list(shape),
        "layer": operation.layer,
    }
    tensor: Optional[Tensor] = file.tensors.get(operation.tensor)
    return entry if tensor is None else {**entry, "step": tensor.step, "zero": tensor.zero}
