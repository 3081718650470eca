"""What each model's input must be, stated in NumPy, and the blobFromImage call that gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from .errors import ConformanceError

if TYPE_CHECKING:  # numpy.typing came with NumPy 1.20
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Triple = tuple[float, float, float]
    Taps = tuple[Array, Array, Array]


@dataclass(frozen=True)
class Mode:
    """One of Keras' preprocessing modes: ``(pixel / divisor - mean) / std``, channel by channel.

    bgr: the network takes its channels as BGR. mean, std: in the order of the network's channels,
    after the division. Source: ``_preprocess_numpy_input`` in keras/src/applications/
    imagenet_utils.py, whose float32 operations and their order are kept.
    """

    name: str
    bgr: bool
    divisor: float
    mean: Triple
    std: Optional[Triple]


@dataclass(frozen=True)
class BlobArguments:
    """Arguments of ``cv2.dnn.blobFromImage`` for a BGR image, and the division it can't do.

    blobFromImage gives ``(pixel - mean) * scalefactor``. mean: in the order of the blob's channels.
    std: divide the blob by it, channel by channel, after the call; None where there is nothing
    to divide by (blobFromImage has one scale factor for all channels).
    """

    scalefactor: float
    mean: Triple
    swapRB: bool
    std: Optional[Triple]


MODES: dict[str, Mode] = {
    "tf": Mode("tf", False, 127.5, (1.0, 1.0, 1.0), None),
    "caffe": Mode("caffe", True, 1.0, (103.939, 116.779, 123.68), None),
    "torch": Mode("torch", False, 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Networks that preprocess in their own first layers: RGB pixels, 0-255, as they are.
    "none": Mode("none", False, 1.0, (0.0, 0.0, 0.0), None),
}


def get_mode(name: str) -> Mode:
    """Return the mode `name`; raise ConformanceError if there is none such."""
    if name not in MODES:
        raise ConformanceError(
            f"unknown preprocessing mode {name!r}: use one of {', '.join(MODES)}"
        )
    return MODES[name]


def preprocess(rgb: Array, mode: str) -> NDArray[np.float32]:
    """Return what the network takes for RGB pixels: float32, same shape, channels last.

    rgb: [..., H, W, 3] uint8 or float32, values 0-255. The result equals Keras'
    ``preprocess_input`` bit for bit. Raises ConformanceError for another dtype, shape or mode.
    """
    rule = get_mode(mode)
    _check_pixels(rgb)
    pixels: Array = rgb.astype(np.float32)
    if rule.bgr:
        pixels = pixels[..., ::-1]
    pixels = pixels / np.float32(rule.divisor) - np.asarray(rule.mean, np.float32)
    if rule.std is not None:
        pixels = pixels / np.asarray(rule.std, np.float32)
    return np.ascontiguousarray(pixels)


def blob_arguments(mode: str) -> BlobArguments:
    """Return the ``cv2.dnn.blobFromImage`` call that prepares a BGR image as `mode` asks."""
    rule = get_mode(mode)
    mean = tuple(value * rule.divisor for value in rule.mean)
    return BlobArguments(
        scalefactor=1.0 / rule.divisor,
        mean=(mean[0], mean[1], mean[2]),
        swapRB=not rule.bgr,
        std=rule.std,
    )


def _check_pixels(image: Array) -> None:
    if image.dtype not in (np.uint8, np.float32) or image.ndim < 3 or image.shape[-1] != 3:
        raise ConformanceError(
            f"image of dtype {image.dtype} and shape {list(image.shape)}: "
            "expected uint8 or float32 pixels, 0-255, shaped [..., height, width, 3]"
        )


def blob(
    image_bgr: Array, size: tuple[int, int], arguments: BlobArguments, crop: bool = False
) -> NDArray[np.float32]:
    """Return what ``cv2.dnn.blobFromImage`` gives, stated in NumPy: float32 [1, 3, height, width].

    image_bgr: [H, W, 3] uint8 or float32. size: (width, height), as OpenCV orders it. crop: resize
    until the image covers `size`, then cut out its centre; otherwise height and width are scaled
    independently. The order of operations is that of ``matFromImagesWithParams`` in OpenCV's
    modules/dnn/src/dnn_utils.cpp: resize, convert, subtract, scale, swap.
    """
    _check_pixels(image_bgr)
    pixels = _cover(image_bgr, size) if crop else resize(image_bgr, size)
    pixels = pixels.astype(np.float32)
    if arguments.swapRB:
        pixels = pixels[..., ::-1]
    mean = np.asarray(arguments.mean, np.float32)
    pixels = (pixels - mean) * np.float32(arguments.scalefactor)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def divide_by_std(blob: Array, arguments: BlobArguments) -> NDArray[np.float32]:
    """Return `blob` [N, 3, H, W] divided by the mode's std, the step blobFromImage can't do."""
    if arguments.std is None:
        return blob
    std = np.asarray(arguments.std, np.float32)
    return np.asarray(blob / std[None, :, None, None], np.float32)


def resize(image: Array, size: tuple[int, int], scale: Optional[float] = None) -> Array:
    """Return `image` [H, W, 3] resized bilinearly to `size` (width, height), same dtype.

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


def _cover(image: Array, size: tuple[int, int]) -> Array:
    """Resize until both sides cover `size` (width, height), then cut it out of the centre."""
    height, width = image.shape[:2]
    if size == (width, height):
        return image.copy()
    factor = max(np.float32(size[0]) / np.float32(width), np.float32(size[1]) / np.float32(height))
    scale = float(factor)
    covering = resize(image, (round(width * scale), round(height * scale)), scale)
    left, top = (covering.shape[1] - size[0]) // 2, (covering.shape[0] - size[1]) // 2
    return covering[top : top + size[1], left : left + size[0]]


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
