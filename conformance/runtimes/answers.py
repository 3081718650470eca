"""What several ways to run a file answer, and which of it is taken for the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.pack.heads import Head
from conformance.pack.request import runtime_title
from conformance.pack.sampling import SAMPLED, node_seed, sampled_values
from conformance.verdict.metrics import l1_sum
from conformance.verdict.tolerance import noise_floor

from . import RUNTIMES
from .file import (
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

# Float64 is taken for the truth where no tensor differs by more than this share of its root mean
# square from the runtime's float32. Rounding comes to 1e-7 to 1e-4, a wrong operation to its size.
AGREES = 0.01
_TINY = float(np.finfo(np.float32).tiny)


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
class Reader:
    """Reads the answers of all inputs, one by one, and samples of inner tensors."""

    importer: str
    file: File
    heads: list[Head]
    inputs: Array

    def read(self, run: Any, path: Path, setting: Optional[Setting] = None) -> Answers:
        """Return the answers of `run`: a runtime's in a setting, or its float64 without one."""
        kept = range(len(self.inputs))[SAMPLED]
        wanted = [operation.tensor for operation in self.file.dependents()]
        ends = {name for head in self.heads for name in (head.output, head.logits, head.name)}
        each = self._double(run, path) if setting is None else self._single(run, path, setting)
        rows: list[dict[str, Array]] = []
        inside: dict[str, list[Array]] = {}
        for index, values in enumerate(each):
            rows.append({name: values[name] for name in ends & values.keys()})
            for name in wanted if index in kept else ():
                if name in values:
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


@dataclass(frozen=True)
class Truth:
    """What is taken for the truth. said: how it was made; exact: whether in float64."""

    answers: Answers
    said: str
    exact: bool = True


def find_truth(reader: Reader, found: dict[str, Answers], path: Path) -> Truth:
    """Return the truth of the file at `path`, given its runtime's answers by setting.

    Of a file in whole numbers the plainest answer; else float64 where it agrees with that in every
    tensor; else the mean of the settings.
    """
    runtime, title = RUNTIMES[reader.importer], runtime_title(reader.importer)
    first, plain = next(iter(found.items()))
    if any(head.step for head in reader.heads):
        return Truth(plain, f"truth: {title}, {first}")
    try:
        double = reader.read(runtime.double, path)
        differing = _disagreement(plain, double, runtime.DOUBLE)
    except Unsupported as error:
        differing = str(error)
    if not differing:
        said = f"truth: {runtime.DOUBLE} in float64, which agrees with {title} in each of "
        said += f"{len(plain.samples)} tensors; noise: {title}, {first}"
        return Truth(double, said + _others(found, double))
    inner = [setting.name for setting in runtime.SETTINGS if setting.inner]
    several = _distinct([found[name] for name in inner])
    mean = _mean(several)
    said = f"truth: mean of {len(several)} differing answers of {title} ({'; '.join(inner)}), as "
    said += f"there is no float64: {differing}"
    return Truth(mean, said + _others(found, mean), exact=False)


def _disagreement(plain: Answers, double: Answers, who: str) -> str:
    """Return which tensor float64 computes otherwise, in words; empty where none."""
    for name, samples in plain.samples.items():
        other = double.samples.get(name)
        if other is None or other.shape != samples.shape:
            return f"{who} gives no {name!r} of that shape"
        strayed, size = root_mean_square(samples - other), root_mean_square(other)
        if not strayed <= AGREES * max(size, _TINY):
            return (
                f"{who} computes {name!r} otherwise (root mean square "
                f"{strayed:.2g} apart, of {size:.2g})"
            )
    return ""


def root_mean_square(values: Array) -> float:
    """Return the root mean square of all values, in float64."""
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
