"""What OpenCV makes of an image is what the network expects: blobFromImage, NumPy and Keras agree.

Two links: Keras' preprocess_input equals the NumPy statement (conformance/preprocessing.py), and
the NumPy statement equals what OpenCV's blobFromImage does, resizing and cropping included.
"""

from __future__ import annotations

import itertools
import platform
from dataclasses import dataclass

import numpy as np
import pytest

from conformance.models import get_model
from conformance.opencv.run import BlobCase, run_blobs
from conformance.pack import Pack
from conformance.preprocessing import (
    MODES,
    blob,
    blob_arguments,
    divide_by_std,
    preprocess,
)

pytestmark = pytest.mark.stage("preprocessing")

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
# On x86-64 uint8 images are resized exactly as stated. Arm builds of OpenCV come with other
# resizing code (Carotene, KleidiCV), and INTER_LINEAR is not specified to the bit: one grey level.
UINT8_LEVELS = 0 if platform.machine() in ("x86_64", "AMD64") else 1


@dataclass(frozen=True)
class Case:
    """One blobFromImage call. image: key of IMAGES."""

    mode: str
    dtype: str
    crop: bool
    image: str

    def __str__(self) -> str:
        return f"{self.mode}-{self.dtype}-{'crop' if self.crop else 'stretch'}-{self.image}"


CASES = [
    Case(*parts) for parts in itertools.product(MODES, ("uint8", "float32"), (False, True), IMAGES)
]


def make_image(case: Case) -> np.ndarray:
    """Return seeded noise [H, W, 3], 0-255: each pixel differs, so that none can be exchanged."""
    width, height = IMAGES[case.image]
    pixels = np.random.default_rng(width * height).random((height, width, 3)) * 255
    return np.rint(pixels).astype(np.uint8) if case.dtype == "uint8" else pixels.astype(np.float32)


def allowed(case: Case, expected: np.ndarray) -> np.ndarray:
    """Return by how much the blob may differ from the NumPy statement, value by value.

    One unit in the last place for subtracting and scaling. When a float32 image is resized, the
    position of a source pixel may be held in float32 too (IPP does so, OpenCV's own code holds it
    in float64): off by eps of the width and of the height, over which noise changes by up to 255.
    """
    rounding = np.asarray(np.spacing(np.abs(expected)))
    width, height = IMAGES[case.image]
    if (width, height) == TARGET:
        return rounding
    levels = UINT8_LEVELS if case.dtype == "uint8" else 255 * EPS * (width + height)
    return np.asarray(rounding + levels * blob_arguments(case.mode).scalefactor)


@pytest.fixture(scope="module")
def blobs() -> dict[Case, object]:
    """What blobFromImage of the installed OpenCV gives for every case, all from one process."""
    calls = []
    for case in CASES:
        arguments = blob_arguments(case.mode)
        keywords = {
            "scalefactor": arguments.scalefactor,
            "size": TARGET,
            "mean": arguments.mean,
            "swapRB": arguments.swapRB,
            "crop": case.crop,
        }
        calls.append(BlobCase(make_image(case), keywords))
    return dict(zip(CASES, run_blobs(calls)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_blob_from_image(blobs: dict[Case, object], case: Case) -> None:
    """blobFromImage resizes, crops, subtracts, scales and orders channels as stated in NumPy."""
    given = blobs[case]
    assert isinstance(given, np.ndarray), given
    expected = blob(make_image(case), TARGET, blob_arguments(case.mode), case.crop)
    assert given.shape == (1, 3, TARGET[1], TARGET[0])
    assert given.dtype == np.float32
    check_close(given, expected, allowed(case, expected))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_blob_is_what_the_network_takes(blobs: dict[Case, object], mode: str, dtype: str) -> None:
    """For an image of the right size, the blob divided by std is the network's input.

    Keras divides, then subtracts; OpenCV subtracts, then scales: on values up to 2 the four
    roundings come to less than 2 eps, which the division by std then enlarges and rounds itself.
    """
    case = Case(mode, dtype, False, "exact")
    given = blobs[case]
    assert isinstance(given, np.ndarray), given
    expected = preprocess(make_image(case)[None, ..., ::-1], mode).transpose(0, 3, 1, 2)
    limit = 2 * EPS / min(MODES[mode].std or (1.0,)) + np.spacing(np.abs(expected))
    check_close(divide_by_std(given, blob_arguments(mode)), expected, limit)


def test_keras_preprocessing(pack: Pack) -> None:
    """The NumPy statement of the model's mode gives what Keras' preprocess_input gives, exactly."""
    arrays = pack.load_archive("preprocessing")
    if "keras" not in arrays:
        pytest.skip("Keras has no function for this preprocessing")
    image, keras = arrays["image"], arrays["keras"]
    own = pack.manifest.own
    mode = own["preprocess"]["mode"] if own else get_model(pack.model).mode
    stated = preprocess(image, mode)
    check_close(stated, keras, np.spacing(np.abs(keras)))


def check_close(given: np.ndarray, expected: np.ndarray, limit: np.ndarray) -> None:
    """Fail, naming the worst position, where two arrays differ by more than `limit`."""
    __tracebackhide__ = True
    assert given.shape == expected.shape
    difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    if not np.all(difference <= limit):
        share = np.nan_to_num(difference / limit, nan=np.inf)
        worst = np.unravel_index(int(np.argmax(share)), share.shape)
        pytest.fail(
            f"{int((share > 1).sum())} of {share.size} values differ; worst at "
            f"{[int(i) for i in worst]}: {given[worst]:.9g}, should be {expected[worst]:.9g} "
            f"within {limit[worst]:.3g}",
            pytrace=False,
        )
