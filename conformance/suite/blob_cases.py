"""The calls of the blobFromImage functions that test_preprocessing.py judges: data, no tests.

Which images, which arguments, which of the functions, and since which OpenCV version there is such
a call at all.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.inputs.blob import BlobCall, state_blob
from conformance.inputs.preprocessing import MODES
from conformance.opencv.blobs import VIEWS, BlobCase

Array = np.ndarray[Any, Any]

EPS = 2.0**-23  # of float32
TARGET = (224, 192)  # width and height differ, so that exchanging them shows

# Name: width and height of the image that is to become TARGET.
IMAGES = {
    "exact": TARGET,
    "square": (300, 300),
    "half": (448, 384),
    "tall": (200, 611),
    "wide": (640, 210),
    "smaller": (97, 61),
    "one_side_smaller": (500, 150),
    "odd": (333, 301),
    "one_pixel_off": (225, 192),
    "large": (1023, 767),
}
# What a version lacks is skipped, saying so; an error of a version that has it is a failure.
SINCE = {
    "params": ("4.8", "blobFromImageWithParams came with OpenCV 4.8"),
    "border": ("4.9", "Image2BlobParams.borderValue came with OpenCV 4.9"),
    "float_to_uint8": (
        "4.11",
        "OpenCV refuses CV_8U blobs of float32 images before 4.11",
    ),
}
# On x86-64 uint8 images are resized exactly as stated. Arm builds of OpenCV come with other
# resizing code (Carotene, KleidiCV), and INTER_LINEAR is not specified to the bit: one grey level.
UINT8_LEVELS = 0 if platform.machine() in ("x86_64", "AMD64") else 1

# Different for each channel, so that exchanging two of them shows; those of BGR, then alpha.
MEAN = (103.939, 116.779, 123.68, 64.5)
SCALES = (1 / 57.375, 1 / 57.12, 1 / 58.395, 1 / 60.0)


@dataclass(frozen=True)
class BlobTest:
    """One call. images: keys of IMAGES. several: blobFromImages, of a list.

    params: ...WithParams. view: key of VIEWS, how the arrays lie in memory. also: a key of SINCE.
    """

    name: str
    call: BlobCall
    images: tuple[str, ...] = ("odd",)
    channels: int = 3
    dtype: str = "uint8"
    params: bool = False
    view: str = "plain"
    also: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def needs(self) -> list[str]:
        """Keys of SINCE."""
        return ["params"] * self.params + [self.also] * bool(self.also)

    @property
    def arrays(self) -> list[Array]:
        """Seeded noise [H, W] or [H, W, C], 0-255: no two pixels alike to be exchanged unseen."""
        return [_noise(*IMAGES[image], self.channels, self.dtype) for image in self.images]

    def expected(self) -> Array:
        """Return the blob as NumPy states it."""
        return state_blob([VIEWS[self.view](array) for array in self.arrays], self.call)

    def opencv(self) -> BlobCase:
        """Return the call as OpenCV gets it."""
        keywords = _fields(self.call) if self.params else self.call.keywords()
        arrays = self.arrays
        return BlobCase(arrays[0] if len(arrays) == 1 else arrays, keywords, self.params, self.view)

    def allowed(self, expected: Array) -> Array:
        """Return by how much OpenCV's blob may differ from the statement, value by value.

        One unit in the last place for subtracting and scaling. When a float32 image is resized,
        the position of a source pixel may be held in float32 too (IPP does so, OpenCV's own code
        holds it in float64): off by eps of the width and of the height, over which noise changes
        by up to 255.
        """
        if self.call.depth == "uint8":
            rounding = np.zeros(expected.shape)
        else:
            rounding = np.asarray(np.spacing(np.abs(expected)))
        sizes = [IMAGES[image] for image in self.images]
        if all(size == (self.call.size or sizes[0]) for size in sizes):
            return rounding
        reach = max(width + height for width, height in sizes)
        levels = UINT8_LEVELS if self.dtype == "uint8" else 255 * EPS * reach
        return np.asarray(rounding + levels * np.max(self.call.scalefactor))


def _noise(width: int, height: int, channels: int, dtype: str) -> Array:
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(width * height).random(shape) * 255
    return np.rint(pixels).astype(np.uint8) if dtype == "uint8" else pixels.astype(np.float32)


def _fields(call: BlobCall) -> dict[str, Any]:
    """Return the fields of Image2BlobParams."""
    scale = call.scalefactor
    # From Python one number would be the scale of the first channel alone, the others' being 1.
    scales = (*scale, 1.0, 1.0, 1.0)[:4] if isinstance(scale, tuple) else (scale,) * 4
    given = {**call.keywords(), "scalefactor": scales}
    del given["crop"]  # the padding mode's here
    if call.layout == "NHWC":
        given["datalayout"] = "DNN_LAYOUT_NHWC"
    if call.padding != "null":
        given["paddingmode"] = f"DNN_PMODE_{call.padding.upper()}"
    if call.border:
        given["borderValue"] = call.border
    return given


def mode_call(mode: str, padding: str = "null") -> BlobCall:
    """Return the call that prepares a BGR image as Keras' `mode` asks, but for its std."""
    return replace(MODES[mode].call(), size=TARGET, padding=padding)


def std_call(mode: str, layout: str) -> BlobCall:
    """Return the call that prepares a BGR image as `mode` asks, its std in the scale factors."""
    call = mode_call(mode)
    std = MODES[mode].std or (1.0, 1.0, 1.0)
    assert isinstance(call.scalefactor, float)
    scales = tuple(call.scalefactor / value for value in std)
    return replace(call, scalefactor=scales, layout=layout)


def network_tests() -> Iterator[BlobTest]:
    """Yield what prepares an image of the right size as a network takes it."""
    for mode in MODES:
        for dtype in ("uint8", "float32"):
            yield BlobTest(f"{mode}-{dtype}", mode_call(mode), ("exact",), dtype=dtype)
        for layout in ("NCHW", "NHWC"):
            name, call = f"{mode}-params-{layout}", std_call(mode, layout)
            yield BlobTest(name, call, ("exact",), params=True)


def resize_tests() -> Iterator[BlobTest]:
    """Yield every size, stretched, cropped and framed; the modes take turns."""
    modes = list(MODES)
    for index, image in enumerate(IMAGES):
        for dtype in ("uint8", "float32"):
            call = mode_call(modes[index % len(modes)])
            for padding in ("null", "crop_center"):
                name = f"{dtype}-{padding}-{image}"
                yield BlobTest(name, replace(call, padding=padding), (image,), dtype=dtype)
            for name, padding in (("letterbox", "letterbox"), ("params_crop", "crop_center")):
                placed = replace(call, padding=padding)
                name = f"{dtype}-{name}-{image}"
                yield BlobTest(name, placed, (image,), 3, dtype, True)


def channel_tests() -> Iterator[BlobTest]:
    """Yield grey and four-channel images, with and without swapRB, plain and through parameters."""
    for channels, kind in ((1, "grey"), (4, "bgra")):
        for swap in (False, True):
            scale = 1 / 57.375
            call = BlobCall(TARGET, scale, MEAN[:channels], swap)
            name = f"{kind}-{'swap' if swap else 'as_is'}"
            yield BlobTest(f"{name}-plain", call, channels=channels)
            for layout in ("NCHW", "NHWC"):
                vector = replace(call, scalefactor=SCALES[:channels], layout=layout)
                params = f"{name}-params-{layout}"
                yield BlobTest(params, vector, channels=channels, params=True)


def border_tests() -> Iterator[BlobTest]:
    """Yield frames of a chosen colour, which is in the order of the image's channels."""
    for channels, kind in ((1, "grey"), (3, "bgr"), (4, "bgra")):
        call = BlobCall(TARGET, SCALES[:channels], MEAN[:channels], padding="letterbox")
        call = replace(call, swapRB=channels == 3, border=(10.0, 20.0, 30.0, 40.0))
        yield BlobTest(f"border-{kind}", call, ("wide",), channels, params=True, also="border")


def view_tests() -> Iterator[BlobTest]:
    """Yield arrays that are not contiguous; dtypes take turns."""
    for index, view in enumerate(VIEWS):
        if view == "plain":
            continue
        dtype = ("uint8", "float32")[index % 2]
        yield BlobTest(f"{dtype}-{view}", mode_call("tf"), dtype=dtype, view=view)


def uint8_tests() -> Iterator[BlobTest]:
    """Yield blobs of uint8, which OpenCV resizes and swaps but neither shifts nor scales."""
    plain = BlobCall(TARGET, depth="uint8")
    for channels, kind in ((1, "grey"), (3, "bgr"), (4, "bgra")):
        call = replace(plain, swapRB=channels > 1)
        yield BlobTest(f"uint8-{kind}", call, channels=channels)
        wide = replace(call, padding="letterbox")
        yield BlobTest(f"uint8-{kind}-params", wide, ("wide",), channels, params=True)
    nhwc = replace(plain, layout="NHWC", swapRB=True)
    yield BlobTest("uint8-bgr-NHWC", nhwc, params=True)
    yield BlobTest("uint8-of_float32", plain, ("exact",), dtype="float32", also="float_to_uint8")


def several_tests() -> Iterator[BlobTest]:
    """Yield lists of images of different sizes; without a size, that of the first is taken."""
    images = ("odd", "wide", "smaller")
    for channels, kind in ((1, "grey"), (3, "bgr"), (4, "bgra")):
        call = BlobCall(TARGET, 1 / 57.375, MEAN[:channels], channels > 1)
        yield BlobTest(f"{kind}-plain", call, images, channels)
        vector = replace(call, scalefactor=SCALES[:channels])
        yield BlobTest(f"{kind}-params-NCHW", vector, images, channels, params=True)
    yield BlobTest("crop", mode_call("torch", "crop_center"), images)
    yield BlobTest("no_size", replace(mode_call("caffe"), size=None), ("exact", "odd", "wide"))
    nhwc = replace(mode_call("tf"), scalefactor=SCALES[:3], layout="NHWC")
    yield BlobTest("bgr-params-NHWC", nhwc, images, params=True)
