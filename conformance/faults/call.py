"""Faults on purpose of the blobFromImage call: what a user gets wrong in preparing an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from conformance.inputs.modes import BlobArguments, blob_arguments
from conformance.models import ModelSpec
from conformance.opencv.blobs import BlobCase
from conformance.reference.graph import Array


@dataclass(frozen=True)
class CallFault:
    """A fault of the blobFromImage call. cases: one a photo. divide: whether std is divided by."""

    kind: str
    cases: list[BlobCase]
    divide: bool = True


def _call(photo: Array, spec: ModelSpec, arguments: BlobArguments, crop: bool = True) -> BlobCase:
    return BlobCase(
        photo,
        {
            "scalefactor": arguments.scalefactor,
            "size": (spec.size, spec.size),
            "mean": arguments.mean,
            "swapRB": arguments.swapRB,
            "crop": crop,
        },
    )


def right_call(photo: Array, spec: ModelSpec) -> BlobCase:
    """Return the right call for a BGR photo, uint8 [H, W, 3]."""
    return _call(photo, spec, blob_arguments(spec.mode))


def call_faults(photos: list[Array], spec: ModelSpec) -> Iterator[CallFault]:
    """Yield each fault of preprocessing for BGR photos, uint8 [H, W, 3]."""
    right = blob_arguments(spec.mode)
    late = [value / right.scalefactor for value in right.mean]
    for kind, arguments in (
        ("BGR for RGB", replace(right, swapRB=not right.swapRB)),
        ("mean after scale", replace(right, mean=(late[0], late[1], late[2]))),
    ):
        yield CallFault(kind, [_call(photo, spec, arguments) for photo in photos])
    yield CallFault("crop missing", [_call(photo, spec, right, crop=False) for photo in photos])
    nearest = [_nearest(photo, spec.size) for photo in photos]
    yield CallFault("wrong interpolation", [_call(photo, spec, right) for photo in nearest])
    yield CallFault("std forgotten", [right_call(photo, spec) for photo in photos], divide=False)


CALL_KINDS = (
    "BGR for RGB",
    "mean after scale",
    "crop missing",
    "wrong interpolation",
    "std forgotten",
)


def _nearest(photo: Array, size: int) -> Array:
    """Return the photo resized to cover `size` by the nearest pixel, where bilinear is right."""
    height, width = photo.shape[:2]
    scale = max(size / height, size / width)
    rows, columns = (
        np.minimum(((np.arange(round(length * scale)) + 0.5) / scale).astype(int), length - 1)
        for length in (height, width)
    )
    return np.asarray(photo[rows][:, columns])
