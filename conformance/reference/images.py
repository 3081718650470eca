"""Photos to what a network takes: seeded crops for calibration, for the check, for the pack."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.models import ModelSpec
from conformance.preprocessing import preprocess

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

# The two sets share no photo, so that the check says something about photos never seen before.
CALIBRATION_PHOTOS = ("apple", "board", "building", "butterfly", "fruits")
CHECK_PHOTOS = ("squirrel_cls", "home", "orange")
CALIBRATION_CROPS = 20
CHECK_CROPS = 16


class Box(NamedTuple):
    """A rectangle of a photo in pixels, right and lower edges excluded, as Pillow orders it."""

    left: int
    top: int
    right: int
    bottom: int


def load_photo(path: Path) -> Pixels:
    """Return the image at `path` as RGB, uint8 [H, W, 3].

    Raises ConformanceError, naming the file, when Pillow can't read it.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConformanceError(
            f"can't read image {path}: {error}. Expected a JPEG or PNG file: restore or replace it"
        ) from error


def crop(photo: Pixels, box: Box, size: int) -> Pixels:
    """Return `box` of an RGB photo [H, W, 3], resized bilinearly to uint8 [size, size, 3]."""
    resampling = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(photo).resize((size, size), resampling, box=box))


def centre_box(photo: Pixels, share: float = 1.0) -> Box:
    """Return the centred square whose side is `share` of the photo's shorter side."""
    height, width = photo.shape[:2]
    side = round(min(height, width) * share)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(left, top, left + side, top + side)


def random_box(photo: Pixels, rng: np.random.Generator) -> Box:
    """Return a square anywhere in the photo, its side 25 to 100 % of the shorter side."""
    height, width = photo.shape[:2]
    side = round(min(height, width) * rng.uniform(0.25, 1.0))
    left = int(rng.integers(0, width - side + 1))
    top = int(rng.integers(0, height - side + 1))
    return Box(left, top, left + side, top + side)


def random_crops(names: tuple[str, ...], count: int, size: int, seed: int) -> Pixels:
    """Return `count` seeded crops, the photos taking turns: uint8 RGB [count, size, size, 3].

    names: photos of fixtures/images, without the suffix. Boxes depend on `seed`, not on `size`.
    """
    rng = np.random.default_rng(seed)
    photos = [_fixture_photo(name) for name in names]
    turns = [photos[index % len(photos)] for index in range(count)]
    return np.stack([crop(photo, random_box(photo, rng), size) for photo in turns])


def recoloured(images: Pixels, seed: int) -> Pixels:
    """Return RGB images [N, H, W, 3], each with its channels shuffled and every second inverted.

    Five photos show few colours. A network calibrated on those alone answers other photos with
    logits far outside its range: one class, probability 1 (measured on densenet121: standard
    deviation 10 of the logits instead of 3; 5 with recoloured crops).
    """
    rng = np.random.default_rng(seed)
    shuffled = np.stack([image[..., rng.permutation(3)] for image in images])
    shuffled[1::2] = 255 - shuffled[1::2]
    return shuffled


def calibration_inputs(spec: ModelSpec) -> Floats:
    """Return preprocessed, recoloured crops of the calibration photos: float32 NHWC."""
    pixels = random_crops(CALIBRATION_PHOTOS, CALIBRATION_CROPS, spec.size, seed=1)
    return preprocess(recoloured(pixels, seed=1), spec.mode)


def check_inputs(spec: ModelSpec) -> Floats:
    """Return 16 preprocessed crops of photos that took no part in calibration: float32 NHWC."""
    return preprocess(random_crops(CHECK_PHOTOS, CHECK_CROPS, spec.size, seed=2), spec.mode)


def pack_inputs(spec: ModelSpec) -> tuple[list[str], Floats]:
    """Return names and preprocessed inputs [N, H, W, 3] float32 of a pack.

    Photos no network was calibrated on, the tutorial's squirrel first, then the edge cases:
    constant black, constant white, and uniform noise.
    """
    images = _pack_images(spec.size)
    return list(images), preprocess(np.stack(list(images.values())), spec.mode)


def _pack_images(size: int) -> dict[str, Pixels]:
    squirrel, home, orange = (_fixture_photo(name) for name in CHECK_PHOTOS)
    shape = (size, size, 3)
    return {
        "squirrel": crop(squirrel, centre_box(squirrel), size),
        "home": crop(home, centre_box(home), size),
        "orange": crop(orange, centre_box(orange), size),
        "squirrel_close": crop(squirrel, centre_box(squirrel, 0.5), size),
        "home_close": crop(home, centre_box(home, 0.5), size),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": np.random.default_rng(3).integers(0, 256, shape, np.uint8),
    }


def _fixture_photo(name: str) -> Pixels:
    return load_photo(fixture_path(f"images/{name}.jpg"))
