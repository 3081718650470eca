"""The names of a model's classes: a text file with one a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path

from .format import LABELS
from .heads import Head

IMAGENET = "labels/classification_classes_ILSVRC2012.txt"
IMAGENET_CLASSES = 1000


def label_lines(path: Path, counts: Collection[int], has: str) -> list[str]:
    """Return the lines of a labels file.

    counts: how many there may be; has: the same in words, such as "the model has 10 classes".
    Raises ConformanceError for a file that can't be read or has another number of lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConformanceError(
            f"labels {path}: can't be read ({error}); give a UTF-8 text, one label a line"
        ) from error
    if len(lines) not in counts:
        raise ConformanceError(
            f"labels {path}: {len(lines)} lines, but {has}; give a file with one label a line, in "
            f"the order of the classes"
        )
    return lines


def write_labels(folder: Path, path: Path, model: str, heads: Sequence[Head]) -> None:
    """Copy a file of labels to a pack's folder; raise ConformanceError where no output fits it."""
    sizes = {head.name: int(np.prod(head.shape)) for head in heads}
    has = ", ".join(f"{size} of output {name!r}" for name, size in sizes.items())
    labels = label_lines(path, sizes.values(), f"{model} has {has}")
    (folder / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")


@lru_cache(maxsize=1)
def imagenet_labels() -> list[str]:
    """Return the ImageNet class names, in the order of the networks' outputs."""
    return label_lines(fixture_path(IMAGENET), [IMAGENET_CLASSES], "ImageNet has 1000 classes")
