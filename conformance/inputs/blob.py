"""What OpenCV's blobFromImage functions must give, stated in NumPy: resize, crop, pad, scale, swap.

The order of operations is that of ``matFromImagesWithParams`` in OpenCV's modules/dnn/src/
dnn_utils.cpp: resize, convert to float32, subtract, scale, swap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

import numpy as np
from numpy.typing import NDArray

from conformance.errors import ConformanceError

Array = NDArray[Any]
Taps = tuple[Array, Array, Array]
Size = tuple[int, int]


@dataclass(frozen=True)
class BlobCall:
    """The arguments of a call of the blobFromImage functions."""

    size: Optional[Size] = None  # (width, height), as OpenCV orders it; None is the first image's
    scalefactor: Union[float, tuple[float, ...]] = 1.0  # one number, or one a channel of the blob
    mean: tuple[float, ...] = ()  # one a channel of the blob
    swapRB: bool = False
    # "null": height and width are scaled independently. "crop_center": scaled until the image
    # covers `size`, then cut out of its centre. "letterbox": scaled until it fits, framed.
    padding: str = "null"
    depth: str = "float32"  # or "uint8"
    layout: str = "NCHW"  # or "NHWC"
    border: tuple[float, ...] = ()  # the colour of a letterbox's frame, in the image's order

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of blobFromImage, without those that are as by default."""
        given: dict[str, Any] = {"swapRB": self.swapRB, "crop": self.padding == "crop_center"}
        for name in ("size", "mean"):
            if getattr(self, name):
                given[name] = getattr(self, name)
        if self.scalefactor != 1.0:
            given["scalefactor"] = self.scalefactor
        if self.depth == "uint8":
            given["ddepth"] = "CV_8U"
        return given


def state_blob(images: Sequence[Array], call: BlobCall) -> Array:
    """Return the blob of `images`: [N, C, H, W] or, where the call asks for it, [N, H, W, C].

    images: uint8 or float32, each [H, W], [H, W, 3] or [H, W, 4], all with as many channels; the
    result has the call's depth. Raises ConformanceError for other images.
    """
    size = call.size or (images[0].shape[1], images[0].shape[0])
    stacked = np.stack([_prepared(image, size, call) for image in images])
    return np.ascontiguousarray(stacked if call.layout == "NHWC" else stacked.transpose(0, 3, 1, 2))


def _prepared(image: Array, size: Size, call: BlobCall) -> Array:
    """Return one image as [height, width, C] of the call's depth, its channels in blob order."""
    _check_image(image)
    pixels = image.reshape(*image.shape[:2], -1)
    pixels = _PLACING[call.padding](pixels, size, call.border)
    channels = pixels.shape[2]
    if call.swapRB and channels >= 3:
        pixels = pixels[..., [2, 1, 0, 3][:channels]]
    if call.depth == "uint8":
        # OpenCV's saturate_cast: rounded half to even, then clamped.
        return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
    scale = np.atleast_1d(np.asarray(call.scalefactor, np.float32))[:channels]
    return (pixels.astype(np.float32) - _scalar(call.mean)[:channels]) * scale


def _check_image(image: Array) -> None:
    channels = image.shape[2] if image.ndim == 3 else 1 if image.ndim == 2 else 0
    if image.dtype not in (np.uint8, np.float32) or channels not in (1, 3, 4):
        raise ConformanceError(
            f"image of dtype {image.dtype} and shape {list(image.shape)}: expected uint8 or "
            "float32 pixels, 0-255, shaped [height, width] or [height, width, 3 or 4]"
        )


def _scalar(values: tuple[float, ...]) -> Array:
    """Return four float32 values, zeros behind those given, as OpenCV's Scalar has them."""
    return np.array([*values, 0, 0, 0, 0][:4], np.float32)


def resize(image: Array, size: Size, scale: Optional[float] = None) -> Array:
    """Return `image` [H, W, C] resized bilinearly to `size` (width, height), same dtype.

    As ``cv2.resize`` with INTER_LINEAR does it (modules/imgproc/src/resize.cpp): pixel centres at
    half-integers, edges repeated, no smoothing when shrinking. scale: destination over source
    where it is prescribed; otherwise the ratio of the sizes.
    """
    height, width = image.shape[:2]
    if size == (width, height):
        return image.copy()
    scale_x, scale_y = (scale, scale) if scale else (size[0] / width, size[1] / height)
    columns = _taps(width, size[0], scale_x)
    rows = _taps(height, size[1], scale_y)
    return (_resize_fixed_point if image.dtype == np.uint8 else _resize_float)(image, columns, rows)


def _cover(image: Array, size: Size, border: tuple[float, ...] = ()) -> Array:
    """Resize until both sides cover `size` (width, height), then cut it out of the centre."""
    height, width = image.shape[:2]
    factor = max(np.float32(size[0]) / np.float32(width), np.float32(size[1]) / np.float32(height))
    scale = float(factor)
    covering = resize(image, (round(width * scale), round(height * scale)), scale)
    left, top = (covering.shape[1] - size[0]) // 2, (covering.shape[0] - size[1]) // 2
    return covering[top : top + size[1], left : left + size[0]]


def _letterbox(image: Array, size: Size, border: tuple[float, ...]) -> Array:
    """Resize until both sides fit into `size` (width, height); centre that on the border."""
    height, width = image.shape[:2]
    factor = min(np.float32(size[0]) / np.float32(width), np.float32(size[1]) / np.float32(height))
    inner = int(np.float32(width) * factor), int(np.float32(height) * factor)
    framed = np.empty((size[1], size[0], image.shape[2]), image.dtype)
    framed[...] = _scalar(border)[: image.shape[2]]
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    framed[top : top + inner[1], left : left + inner[0]] = resize(image, inner)
    return framed


def _stretch(image: Array, size: Size, border: tuple[float, ...]) -> Array:
    return resize(image, size)


_PLACING: dict[str, Callable[[Array, Size, tuple[float, ...]], Array]] = {
    "null": _stretch,
    "crop_center": _cover,
    "letterbox": _letterbox,
}


def _taps(source: int, target: int, scale: float) -> Taps:
    """Return for each target pixel its two source pixels and the weight of the second."""
    centre = ((np.arange(target) + 0.5) * (1.0 / scale) - 0.5).astype(np.float32)
    first = np.floor(centre)
    index = first.astype(np.int64)
    last = source - 1
    return np.clip(index, 0, last), np.clip(index + 1, 0, last), centre - first


def _resize_float(image: Array, columns: Taps, rows: Taps) -> Array:
    left, right, across = columns
    upper, lower, down = rows
    across, down = across[None, :, None], down[:, None, None]
    one = np.float32(1)
    wide = image[:, left] * (one - across) + image[:, right] * across
    return np.asarray(wide[upper] * (one - down) + wide[lower] * down)


def _resize_fixed_point(image: Array, columns: Taps, rows: Taps) -> Array:
    """As OpenCV rounds uint8: weights in 1/2048, rows summed exactly, columns in 16-bit halves."""
    left, right, across = columns
    upper, lower, down = rows
    pixels = image.astype(np.int64)
    x0, x1 = (value[None, :, None] for value in _fixed_weights(across))
    y0, y1 = (value[:, None, None] for value in _fixed_weights(down))
    wide = (pixels[:, left] * x0 + pixels[:, right] * x1) >> 4
    total = ((wide[upper] * y0) >> 16) + ((wide[lower] * y1) >> 16)
    return np.asarray((total + 2) >> 2, np.uint8)


def _fixed_weights(weight: Array) -> tuple[Array, Array]:
    scaled = [np.rint(part * np.float32(2048)) for part in (np.float32(1) - weight, weight)]
    return scaled[0].astype(np.int64), scaled[1].astype(np.int64)
