"""What a network answers: its outputs, be they softmax, sigmoid or plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Head:
    """One output of a graph.

    name: what its author calls it. output: the node whose value it is. logits: the node before the
    softmax or sigmoid, elsewhere the same node. kind: "softmax", "sigmoid" or "values". shape: of
    one image's output, NHWC. step, zero: of an output in whole numbers or in steps, its scale and
    the number that stands for 0; step 0 for plain floating point.
    """

    name: str
    output: str
    logits: str
    kind: str
    shape: tuple[int, ...]
    step: float = 0.0
    zero: int = 0


def heads_of(entries: Sequence[dict[str, Any]]) -> tuple[Head, ...]:
    """Return the outputs that a pack's manifest describes in `entries`."""
    return tuple(Head(**{**entry, "shape": tuple(entry["shape"])}) for entry in entries)


def head_note(head: Head) -> str:
    """Return in words what an output is, and how it is judged."""
    count = int(np.prod(head.shape))
    if head.kind == "softmax":
        return f"output {head.name!r}: a softmax of {count} classes"
    shape = " x ".join(map(str, head.shape))
    values = f"output {head.name!r}: {shape} value{'s' if count > 1 else ''}"
    how = "their distance itself is judged, against the noise floor"
    if head.kind == "sigmoid":
        return f"{values} of a sigmoid, which need not sum to 1; {how}"
    if head.step:
        return f"{values} in steps of {head.step:.3g}; their distance is judged in such steps"
    return f"{values}, no softmax; {how}"


def by_scale(values: Array, step: float, zero: int) -> Array:
    """Return whole numbers as float32, by their scale and zero point; all else as it is."""
    if values.dtype.kind not in "iu":
        return values
    return np.asarray((values.astype(np.float32) - zero) * np.float32(step))
