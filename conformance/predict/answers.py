"""What a framework answered to a picture: best classes with their labels, and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.pack.labels import IMAGENET_CLASSES, imagenet_labels, label_lines
from conformance.verdict.metrics import apart, top_k

Array = np.ndarray[Any, Any]

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
    strayed = apart(first.ravel(), second.ravel())
    return Difference(float(strayed.sum()), float(strayed.max()))


def best_classes(outputs: Array, labels: Sequence[str]) -> list[Best]:
    """Return the BEST classes of outputs [1, C], the most probable one first."""
    row = outputs.reshape(1, -1)
    return [
        Best(int(i), labels[i] if labels else "", float(row[0, i])) for i in top_k(row, BEST)[0]
    ]


def read_labels(
    path: Optional[Path], classes: int, own: Optional[Sequence[str]] = None
) -> list[str]:
    """Return a label for each class, from a file with one line a class.

    own: what a user's own model has, used where no file is given; None for a model of the registry,
    of whose 1000 classes ImageNet's names are used. See label_lines for errors.
    """
    if path is not None:
        return label_lines(path, [classes], f"the model has {classes} classes")
    if own is not None:
        return list(own)
    return imagenet_labels() if classes == IMAGENET_CLASSES else []
