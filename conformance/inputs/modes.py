"""What each model's input must be, stated in NumPy, and the blobFromImage call that gives it.

blob.py states that call itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from conformance.errors import ConformanceError

if TYPE_CHECKING:  # numpy.typing came with NumPy 1.20
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Triple = tuple[float, float, float]


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


def divide_by_std(blob: Array, arguments: BlobArguments) -> NDArray[np.float32]:
    """Return `blob` [N, 3 or 1, H, W] divided by std, the step blobFromImage can't do."""
    if arguments.std is None:
        return blob
    std = np.asarray(arguments.std, np.float32)[: blob.shape[1]]
    return np.asarray(blob / std[None, :, None, None], np.float32)
