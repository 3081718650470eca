"""Convolution and pooling in NumPy, of whatever precision: what a kernel sees at each place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from .file import Array


def windows(
    x: Array,
    kernel: Sequence[int],
    strides: Optional[Sequence[int]] = None,
    pads: Optional[Sequence[int]] = None,
    dilations: Optional[Sequence[int]] = None,
    auto_pad: Optional[str] = None,
    ceil_mode: Optional[int] = None,
    fill: float = 0.0,
    **_: Any,
) -> Array:
    """Return what a kernel sees at each place: [N, C, H, W] becomes [N, C, OH, OW, KH, KW].

    The arguments are ONNX's attributes of Conv, MaxPool and AveragePool. fill: what is padded.
    """
    if x.ndim != 4:
        raise NotImplementedError(f"windows of {x.ndim - 2} axes")
    strides, dilations = strides or (1, 1), dilations or (1, 1)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    before, after = _padding(x.shape[2:], spans, strides, pads, auto_pad)
    if ceil_mode:
        for axis, (side, span, step) in enumerate(zip(x.shape[2:], spans, strides)):
            left = (side + before[axis] + after[axis] - span) % step
            after[axis] += step - left if left else 0
    around = [(0, 0), (0, 0), *zip(before, after)]
    padded = np.pad(x, around, constant_values=fill)
    seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    return np.asarray(seen[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]])


def _padding(
    sides: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
    pads: Optional[Sequence[int]],
    auto_pad: Optional[str],
) -> tuple[list[int], list[int]]:
    """Return what is padded before and after each side."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        places = [-(-side // step) for side, step in zip(sides, strides)]
        total = [
            max((n - 1) * step + span - side, 0)
            for n, step, span, side in zip(places, strides, spans, sides)
        ]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        return (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if auto_pad == "VALID" or not pads:
        return [0, 0], [0, 0]
    return list(pads[:2]), list(pads[2:])


def convolve(x: Array, kernel: Array, group: Optional[int] = None, **how: Any) -> Array:
    """Return the convolution of x [N, C, H, W] by a kernel [O, C / group, KH, KW], ONNX's Conv."""
    groups = group or 1
    how.pop("kernel_shape", None)
    seen = windows(x, kernel.shape[2:], **how)
    if groups == x.shape[1]:  # each channel by itself
        own = kernel.reshape(groups, -1, *kernel.shape[2:])
        found = np.einsum("nchwij,cmij->ncmhw", seen, own)
        return np.asarray(found.reshape(len(x), len(kernel), *seen.shape[2:4]))
    parts = zip(np.split(seen, groups, axis=1), np.split(kernel, groups, axis=0))
    found = [np.tensordot(part, own, ((1, 4, 5), (1, 2, 3))) for part, own in parts]
    return np.asarray(np.concatenate(found, axis=3).transpose(0, 3, 1, 2))
