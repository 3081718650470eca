"""From a file to the pixels a network sees, by Pillow: the same whatever OpenCV is judged.

Accuracies depend on the recipe by points, so that it is stated with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

from conformance.errors import imported

Array = np.ndarray[Any, Any]
# Keras' recipe leaves the same border at all sizes: 256 for 224, 342 for 299.
_KERAS_BORDER = 256 / 224


@dataclass(frozen=True)
class Recipe:
    """How an RGB image becomes a square. text: in words, for the report."""

    text: str
    apply: Callable[[Any, int], Any]


def _tutorial(image: Any, size: int) -> Any:
    """Scale the short side to `size` as cv2.resize does, without smoothing; crop the centre.

    One affine map gives only the pixels that are kept.
    """
    from PIL import Image

    width, height = image.size
    scale = min(width, height) / size
    left, top = (width - size * scale) / 2, (height - size * scale) / 2
    across = (scale, 0.0, left, 0.0, scale, top)
    return image.transform((size, size), Image.Transform.AFFINE, across, Image.Resampling.BILINEAR)


def _keras(image: Any, size: int) -> Any:
    """Scale the short side to 256 for 224 pixels, cubic and smoothed; crop the centre."""
    from PIL import Image

    width, height = image.size
    short = round(size * _KERAS_BORDER)
    scale = short / min(width, height)
    wide, high = max(short, round(width * scale)), max(short, round(height * scale))
    larger = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size) // 2, (high - size) // 2
    return larger.crop((left, top, left + size, top + size))


RECIPES = {
    "tutorial": Recipe("short side to the input size, bilinear, centre crop", _tutorial),
    "keras": Recipe("short side to 8/7 of the input size, bicubic, centre crop", _keras),
}


@dataclass(frozen=True)
class Bad:
    """An image that can't be used. index: its place among the names given."""

    index: int
    name: str
    reason: str


def require_pillow() -> None:
    """Raise ConformanceError saying what to install where Pillow is missing."""
    imported("PIL.Image", "reading images needs Pillow", "imagenet")


def decode(path: Path, size: int, recipe: str) -> Array:
    """Return the image as uint8 RGB [size, size, 3].

    EXIF rotation is applied; CMYK, grey and palette images become RGB, whatever the file is
    called. Raises whatever Pillow does for what is no whole image: OSError, SyntaxError, …
    """
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(RECIPES[recipe].apply(upright.convert("RGB"), size))


def decode_all(
    folder: Path, names: Sequence[str], size: int, recipe: str
) -> tuple[Array, list[Bad]]:
    """Return the pixels of the good images, uint8 [N, size, size, 3], and the bad ones."""
    pixels = np.empty((len(names), size, size, 3), np.uint8)
    bad: list[Bad] = []
    for index, name in enumerate(names):
        try:
            pixels[index - len(bad)] = decode(folder / name, size, recipe)
        # Of a broken file Pillow makes struct.error and TypeError, too: none may end hours of work.
        except Exception as error:
            bad.append(Bad(index, name, " ".join(str(error).split()) or type(error).__name__))
    return pixels[: len(names) - len(bad)], bad
