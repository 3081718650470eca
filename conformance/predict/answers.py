"""What a framework answered to a picture: best classes with their labels, and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path

Array = np.ndarray[Any, Any]

IMAGENET = "labels/classification_classes_ILSVRC2012.txt"
IMAGENET_CLASSES = 1000
BEST = 5


@dataclass(frozen=True)
class Best:
    """One of the best classes. label: empty where there are no labels."""

    class_id: int
    label: str
    confidence: float


@dataclass(frozen=True)
class Answer:
    """What one framework gave for one picture.

    framework: "OpenCV" or "TensorFlow", with what is to be known of it. input_shape: of what it
    was given. ms: time of the one inference, the network being warm. outputs: float32 [1, C]. kind:
    as Pack.kind, what the numbers are.
    """

    framework: str
    version: str
    how: str
    threads: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    ms: float
    best: list[Best]
    outputs: Array
    kind: str = "softmax"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, without the outputs."""
        best = [
            {"class": one.class_id, "label": one.label, "confidence": one.confidence}
            for one in self.best
        ]
        return {
            "version": self.version,
            "how": self.how,
            "threads": self.threads,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "top5": best,
            "inference_ms": self.ms,
        }


@dataclass(frozen=True)
class Difference:
    """L1: sum of the absolute differences over the classes; linf: the greatest one."""

    l1: float
    linf: float

    def as_dict(self) -> dict[str, float]:
        """Return it as plain JSON values."""
        return asdict(self)


def difference(first: Array, second: Array) -> Difference:
    """Return how far apart two outputs of the same classes are."""
    apart = np.abs(first.astype(np.float64).ravel() - second.astype(np.float64).ravel())
    return Difference(float(apart.sum()), float(apart.max()))


def best_classes(outputs: Array, labels: Sequence[str]) -> list[Best]:
    """Return the BEST classes of outputs [1, C], the most probable one first."""
    flat = outputs.ravel()
    order = np.argsort(-flat, kind="stable")[:BEST]
    return [Best(int(i), labels[i] if labels else "", float(flat[i])) for i in order]


def read_labels(
    path: Optional[Path], classes: int, own: Optional[Sequence[str]] = None
) -> list[str]:
    """Return a label for each class, from a file with one line a class.

    own: what a user's own model has; None for a model of the registry. Where no file is given: own
    where they are as many, ImageNet's for 1000 classes of the registry, none else. Raises
    ConformanceError for a file that can't be read or has another number of lines.
    """
    if path is None:
        if own is not None:
            return list(own) if len(own) == classes else []
        if classes != IMAGENET_CLASSES:
            return []
        path = fixture_path(IMAGENET)
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConformanceError(
            f"labels {path}: can't be read ({error}); give a UTF-8 text, one label a line"
        ) from error
    if len(labels) != classes:
        raise ConformanceError(
            f"labels {path}: {len(labels)} lines, but the model has {classes} classes; give a "
            f"file with one label a line, in the order of the classes"
        )
    return labels
