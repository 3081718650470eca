"""Faults on purpose of the blobFromImage call: what a user gets wrong in preparing an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from conformance.inputs.preprocessing import Preprocessing, get_mode
from conformance.models import ModelSpec
from conformance.opencv.blobs import BlobCase
from conformance.reference.graph import Array


@dataclass(frozen=True)
class CallFault:
    """A fault of the blobFromImage call. cases: one a photo. divide: whether std is divided by."""

    kind: str
    cases: list[BlobCase]
    divide: bool = True


def right(spec: ModelSpec) -> Preprocessing:
    """Return how the model's input is made."""
    return replace(get_mode(spec.mode), size=(spec.size, spec.size))


def calls(photos: list[Array], of: Preprocessing) -> list[BlobCase]:
    """Return the calls for BGR photos, uint8 [H, W, 3]."""
    return [BlobCase(photo, of.call().keywords()) for photo in photos]


def _late(of: Preprocessing) -> Preprocessing:
    red, green, blue = (value / of.scale for value in of.mean)
    return replace(of, mean=(red, green, blue))


_CHANGES: dict[str, Callable[[Preprocessing], Preprocessing]] = {
    "BGR for RGB": lambda of: replace(of, rgb=not of.rgb),
    "mean after scale": _late,
    "crop missing": lambda of: replace(of, crop=False),
}
CALL_KINDS = (*_CHANGES, "wrong interpolation", "std forgotten")


def call_faults(photos: list[Array], spec: ModelSpec) -> Iterator[CallFault]:
    """Yield each fault of preprocessing for BGR photos, uint8 [H, W, 3]."""
    of = right(spec)
    for kind, change in _CHANGES.items():
        yield CallFault(kind, calls(photos, change(of)))
    nearest = [_nearest(photo, spec.size) for photo in photos]
    yield CallFault("wrong interpolation", calls(nearest, of))
    yield CallFault("std forgotten", calls(photos, of), divide=False)


def _nearest(photo: Array, size: int) -> Array:
    """Return the photo resized to cover `size` by the nearest pixel, where bilinear is right."""
    height, width = photo.shape[:2]
    scale = max(size / height, size / width)
    rows, columns = (
        np.minimum(((np.arange(round(length * scale)) + 0.5) / scale).astype(int), length - 1)
        for length in (height, width)
    )
    return np.asarray(photo[rows][:, columns])
