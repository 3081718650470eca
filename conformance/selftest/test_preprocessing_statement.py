"""The NumPy statement of preprocessing, held against values known from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from conformance.errors import ConformanceError
from conformance.inputs.blob import BlobCall, resize, state_blob
from conformance.inputs.preprocessing import MODES, get_mode

if TYPE_CHECKING:
    from conformance.inputs.preprocessing import Array

# One channel of a 4 x 3 image and what cv2.resize gives for it (OpenCV 4.5.1 and 5.0.0 agree).
_PIXELS = np.array([[10, 3, 32, 100], [6, 91, 13, 0], [255, 45, 172, 67]], np.uint8)
_RESIZED = {
    (3, 2): [[12, 26, 67], [170, 94, 64]],
    (9, 3): [
        [10, 9, 6, 5, 18, 30, 58, 89, 100],
        [6, 20, 58, 87, 52, 17, 8, 2, 0],
        [255, 220, 127, 52, 109, 165, 131, 84, 67],
    ],
    (5, 7): [
        [10, 5, 17, 52, 100],
        [9, 14, 22, 46, 86],
        [8, 39, 37, 27, 43],
        [6, 66, 52, 9, 0],
        [113, 84, 76, 65, 29],
        [219, 102, 100, 122, 57],
        [255, 108, 108, 140, 67],
    ],
}


def _image(height: int, width: int, dtype: str = "uint8") -> Array:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3)).astype(np.dtype(dtype))


@pytest.mark.parametrize(
    ("mode", "rgb", "expected"),
    [
        ("tf", (0, 127.5, 255), (-1, 0, 1)),
        ("caffe", (123.68, 116.779, 255), (255 - 103.939, 0, 0)),
        ("torch", (0.485 * 255, 0.456 * 255, 255), (0, 0, (1 - 0.406) / 0.225)),
    ],
)
def test_preprocess_maps_known_pixels(mode: str, rgb: tuple[float, ...], expected: Any) -> None:
    """Each mode maps a pixel as Keras documents it; caffe answers in BGR."""
    pixel = np.array(rgb, np.float32).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(get_mode(mode).apply(pixel)[0, 0, 0], expected, atol=3e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_preprocess_leaves_its_argument_alone(mode: str, dtype: str) -> None:
    """Preprocessing returns float32 of the same shape and does not write into the image."""
    image = _image(5, 7, dtype)[None]
    before = image.copy()
    result = get_mode(mode).apply(image)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("mode", MODES)
def test_blob_of_the_exact_size_is_preprocess(mode: str) -> None:
    """Without resizing, the blob of the BGR image, divided by std, is what the network takes."""
    rgb = _image(9, 6)
    given = get_mode(mode).blob(rgb[..., ::-1])
    expected = get_mode(mode).apply(rgb[None]).transpose(0, 3, 1, 2)
    # Keras divides before it subtracts: values up to 1 (tf, torch) carry eps, over std 0.224.
    np.testing.assert_allclose(given, expected, rtol=0, atol=3 * 2.0**-23 / 0.224)


@pytest.mark.parametrize("size", _RESIZED)
def test_uint8_is_resized_as_opencv_rounds(size: tuple[int, int]) -> None:
    """Resizing uint8 gives OpenCV's fixed-point values, in each channel."""
    image = np.repeat(_PIXELS[..., None], 3, axis=2)
    resized = resize(image, size)
    assert resized.dtype == np.uint8
    for channel in range(3):
        assert resized[..., channel].tolist() == _RESIZED[size]


@pytest.mark.parametrize("size", _RESIZED)
def test_float32_is_resized_without_rounding(size: tuple[int, int]) -> None:
    """Resizing float32 gives the values that uint8 rounds, within one grey level."""
    image = np.repeat(_PIXELS[..., None], 3, axis=2).astype(np.float32)
    resized = resize(image, size)
    assert resized.dtype == np.float32
    assert np.abs(resized[..., 1] - _RESIZED[size]).max() <= 0.75
    assert (resized != np.rint(resized)).any()


def test_half_the_size_averages_two_by_two() -> None:
    """At exactly half the size each pixel is the mean of four, halves rounded up in uint8."""
    image = np.repeat(np.array([[1, 2], [2, 1]], np.uint8)[..., None], 3, axis=2)
    assert resize(image, (1, 1)).tolist() == [[[2, 2, 2]]]
    assert resize(image.astype(np.float32), (1, 1)).tolist() == [[[1.5, 1.5, 1.5]]]


def test_crop_keeps_the_aspect_ratio_and_the_centre() -> None:
    """With crop, a wide image loses its left and right margins and nothing else."""
    image = np.zeros((10, 30, 3), np.float32)
    image[:, 10:20] = 255
    of = replace(get_mode("caffe"), size=(10, 10))
    cut, squeezed = of.blob(image), replace(of, crop=False).blob(image)
    assert cut.shape == squeezed.shape == (1, 3, 10, 10)
    assert cut[0, 0].min() == cut[0, 0].max() == np.float32(255 - 103.939)
    assert squeezed[0, 0].min() == np.float32(-103.939)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float64)],
)
def test_other_pixels_are_refused(image: Array) -> None:
    """What no network takes, grey, RGBA or float64, is an error that says what is expected."""
    with pytest.raises(ConformanceError, match="expected uint8 or float32"):
        get_mode("tf").apply(image)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4, 2), "uint8"), ((4, 4, 3), "float64")])
def test_other_images_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    """What blobFromImage does not take, two channels or float64, is an error that says so too."""
    with pytest.raises(ConformanceError, match="expected uint8 or float32"):
        state_blob([np.zeros(shape, dtype)], BlobCall())


def test_letterbox_keeps_the_whole_image() -> None:
    """A wide image keeps its width and its aspect ratio; above and below is the border."""
    image = np.full((10, 30, 3), 200, np.uint8)
    call = BlobCall((15, 11), padding="letterbox", border=(1, 2, 3), swapRB=True, mean=(50,))
    framed = state_blob([image], call)[0]
    assert (
        framed[:, 3:8].tolist() == np.broadcast_to([[[150]], [[200]], [[200]]], (3, 5, 15)).tolist()
    )
    assert framed[:, [0, 2, 8, 10], 7].tolist() == [[3 - 50] * 4, [2] * 4, [1] * 4]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_channel_has_its_own_mean_and_scale(channels: int) -> None:
    """Mean and scale are in the order of the blob's channels; alpha is not swapped."""
    image = np.arange(1, channels + 1, dtype=np.uint8) * np.ones((1, 1, channels), np.uint8)
    call = BlobCall(mean=(1, 2, 3, 4), scalefactor=(1, 10, 100, 1000), swapRB=True, layout="NHWC")
    expected = {1: [0], 3: [2, 0, -200], 4: [2, 0, -200, 0]}[channels]
    assert state_blob([image], call)[0, 0, 0].tolist() == expected


def test_unknown_mode_is_refused() -> None:
    """An unknown mode is an error that lists the modes."""
    with pytest.raises(ConformanceError, match="'keras': use one of tf, caffe, torch"):
        get_mode("keras")
