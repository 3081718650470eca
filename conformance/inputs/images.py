"""Photos to what a network takes: seeded crops for calibration, for the check, for the pack."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.inputs.preprocessing import Preprocessing, get_mode
from conformance.models import ModelSpec

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Size = tuple[int, int]  # height and width

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


def crop(photo: Pixels, box: Box, size: Size) -> Pixels:
    """Return `box` of an RGB photo [H, W, 3], resized bilinearly: uint8 [height, width, 3]."""
    resampling = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(photo).resize(size[::-1], resampling, box=box))


def centre_box(photo: Pixels, share: float, size: Size) -> Box:
    """Return the greatest centred box of the shape of `size`, its sides times `share`."""
    height, width = photo.shape[:2]
    down, across = size
    unit = min(height / down, width / across) * share
    box_height, box_width = round(unit * down), round(unit * across)
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return Box(left, top, left + box_width, top + box_height)


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
    return np.stack([crop(photo, random_box(photo, rng), (size, size)) for photo in turns])


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
    return get_mode(spec.mode).apply(recoloured(pixels, seed=1))


def check_inputs(spec: ModelSpec) -> Floats:
    """Return 16 preprocessed crops of photos that took no part in calibration: float32 NHWC."""
    pixels = random_crops(CHECK_PHOTOS, CHECK_CROPS, spec.size, seed=2)
    return get_mode(spec.mode).apply(pixels)


def pack_inputs(spec: ModelSpec) -> tuple[list[str], Floats]:
    """Return names and preprocessed inputs [N, H, W, 3] float32 of a pack.

    Photos no network was calibrated on, the tutorial's squirrel first, then the edge cases:
    constant black, constant white, and uniform noise.
    """
    return own_inputs(get_mode(spec.mode), (spec.size, spec.size), 3)


def own_inputs(preprocessing: Preprocessing, size: Size, channels: int) -> tuple[list[str], Floats]:
    """Return names and inputs [N, height, width, channels] float32 for a user's own model.

    The images of pack_inputs, brought to `size` (height, width) as `preprocessing` says: cropped or
    stretched. channels: 3, or 1 for a model that takes grey images.
    """
    images = _pack_images(size, preprocessing)
    pixels = np.stack(list(images.values()))
    if channels == 1:
        grey = [np.asarray(Image.fromarray(image).convert("L")) for image in pixels]
        pixels = np.repeat(np.stack(grey)[..., None], 3, axis=-1)
    inputs = preprocessing.apply(pixels)[..., :channels]
    return list(images), np.ascontiguousarray(inputs)


def _pack_images(size: Size, own: Preprocessing) -> dict[str, Pixels]:
    squirrel, home, orange = (_resized(_fixture_photo(name), own) for name in CHECK_PHOTOS)
    shape = (*size, 3)

    def view(photo: Pixels, share: float = 1.0) -> Pixels:
        box = centre_box(photo, share, size if own.crop else photo.shape[:2])
        return crop(photo, box, size)

    return {
        "squirrel": view(squirrel),
        "home": view(home),
        "orange": view(orange),
        "squirrel_close": view(squirrel, 0.5),
        "home_close": view(home, 0.5),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": np.random.default_rng(3).integers(0, 256, shape, np.uint8),
    }


def _resized(photo: Pixels, own: Preprocessing) -> Pixels:
    if own.resize is None:
        return photo
    return crop(photo, Box(0, 0, photo.shape[1], photo.shape[0]), own.resize)


def _fixture_photo(name: str) -> Pixels:
    return load_photo(fixture_path(f"images/{name}.jpg"))
