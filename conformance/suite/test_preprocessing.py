"""What OpenCV makes of an image is what the network expects: blobFromImage, NumPy and Keras agree.

Links of a chain: Keras' preprocess_input equals the NumPy statement (inputs/preprocessing.py), the
NumPy statement of the blobFromImage functions (inputs/blob.py) equals what OpenCV does, resizing
and cropping included, and both load an image as Keras does where they can.
blob_cases.py has the calls.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import numpy as np
import pytest

from conformance.fixtures import fixture_path
from conformance.inputs.preprocessing import get_mode
from conformance.models import get_model
from conformance.opencv.blobs import BlobCase, run_blobs
from conformance.opencv.levels import Level
from conformance.pack.format import PREPROCESSING, Pack
from conformance.session import Session
from conformance.tables import release

from .blob_cases import (
    EPS,
    SINCE,
    Array,
    BlobTest,
    border_tests,
    channel_tests,
    network_tests,
    resize_tests,
    several_tests,
    uint8_tests,
    view_tests,
)

pytestmark = pytest.mark.stage("preprocessing")

GROUPS = {
    "network": list(network_tests()),
    "resize": list(resize_tests()),
    "channels": list(channel_tests()),
    "border": list(border_tests()),
    "view": list(view_tests()),
    "uint8": list(uint8_tests()),
    "several": list(several_tests()),
}

Blobs = Callable[[BlobTest], Array]


def lacking(case: BlobTest, version: str) -> str:
    """Return why OpenCV `version` has no such call, or an empty string."""
    for since, reason in (SINCE[need] for need in case.needs):
        if release(version) < release(since):
            return reason
    return ""


@pytest.fixture(scope="module")
def given(conformance_session: Session, level: Level) -> Blobs:
    """What the installed OpenCV gives for a case; all of them are run at once in one process."""
    version = conformance_session.capability["version"]
    cases = [case for group in GROUPS.values() for case in group if not lacking(case, version)]
    blobs = dict(zip(cases, run_blobs([case.opencv() for case in cases], level=level)))

    def given(case: BlobTest) -> Array:
        __tracebackhide__ = True
        reason = lacking(case, version)
        if reason:
            pytest.skip(f"{reason}; this is {version}")
        blob = blobs[case]
        if isinstance(blob, str):
            pytest.fail(f"OpenCV {version} gives no blob for {case.opencv().text()}: {blob}", False)
        return blob

    return given


def check(given: Blobs, case: BlobTest) -> None:
    """Fail where the blob is not what NumPy states."""
    __tracebackhide__ = True
    expected = case.expected()
    check_close(given(case), expected, case.allowed(expected), case.opencv().text())


@pytest.mark.parametrize("case", GROUPS["resize"], ids=str)
def test_resizing(given: Blobs, case: BlobTest) -> None:
    """blobFromImage stretches, crops and frames images of all sizes as stated in NumPy."""
    check(given, case)


@pytest.mark.parametrize("case", GROUPS["channels"], ids=str)
def test_channels(given: Blobs, case: BlobTest) -> None:
    """Grey images have one mean and scale whatever swapRB says; alpha keeps its place."""
    check(given, case)


@pytest.mark.parametrize("case", GROUPS["border"], ids=str)
def test_border(given: Blobs, case: BlobTest) -> None:
    """A letterbox's border has the colour asked for, and is preprocessed like the image."""
    check(given, case)


@pytest.mark.parametrize("case", GROUPS["view"], ids=str)
def test_arrays_that_are_not_contiguous(given: Blobs, case: BlobTest) -> None:
    """The blob is of the pixels that NumPy shows, however they lie in memory."""
    check(given, case)


@pytest.mark.parametrize("case", GROUPS["uint8"], ids=str)
def test_uint8_blob(given: Blobs, case: BlobTest) -> None:
    """A blob of depth CV_8U holds the pixels themselves, a float32 image's rounded and clamped."""
    check(given, case)


@pytest.mark.parametrize("case", GROUPS["several"], ids=str)
def test_several_images(given: Blobs, case: BlobTest) -> None:
    """Each image of a list is prepared as it would be alone, whatever its place in the list."""
    check(given, case)


@pytest.mark.parametrize("case", GROUPS["network"], ids=str)
def test_blob_is_what_the_network_takes(given: Blobs, case: BlobTest) -> None:
    """For an image of the right size, the blob is the network's input, divided by std or scaled.

    Keras divides, then subtracts; OpenCV subtracts, then scales: on values up to 2 the four
    roundings come to less than 2 eps, which the division by std then enlarges and rounds itself.
    """
    mode = get_mode(case.name.split("-")[0])
    blob = given(case)
    if not case.params:
        blob = mode.divide(blob)
    if case.call.layout == "NCHW":
        blob = blob.transpose(0, 2, 3, 1)
    expected = mode.apply(case.arrays[0][None, ..., ::-1])
    limit = 2 * EPS / min(mode.std or (1.0,)) + np.spacing(np.abs(expected))
    check_close(blob, expected, limit, case.opencv().text())


def test_float32_before_resizing(request: pytest.FixtureRequest) -> None:
    """Converting to float32 before resizing, as the tutorial does, moves a pixel by a grey level.

    Resizing uint8 rounds to a level (1/2), drops up to 1/4 of a level of either row before that,
    and has weights of 1/2048, which noise of 255 levels turns into 1/16 level across and down.
    """
    cases = [case for case in GROUPS["resize"] if case.dtype == "uint8" and not case.params]
    calls = [case.opencv() for case in cases]
    calls += [replace(call, image=np.asarray(call.image, np.float32)) for call in calls]
    blobs = run_blobs(calls)
    assert not [blob for blob in blobs if isinstance(blob, str)]
    differences = [
        np.abs(np.asarray(before) - np.asarray(after)) / case.call.scalefactor
        for case, before, after in zip(cases, blobs, blobs[len(cases) :])
    ]
    levels = np.concatenate([difference.ravel() for difference in differences])
    # Not by record_property, which warns where JUnit XML is asked for.
    request.node.user_properties += [
        ("float32 before resizing: mean grey levels", float(levels.mean())),
        ("float32 before resizing: greatest", float(levels.max())),
    ]
    assert levels.max() <= 1.2


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", ["same", "twice", "stretched", "cropped"])
def test_keras_loading(size: str, dtype: str) -> None:
    """Where nothing is shrunk, an image is resized as Keras' load_img (bilinear) does.

    Pillow, which Keras calls, rounds to a level across, then down: 1/2 each. OpenCV's uint8 rounds
    too, by less than 1.2 (test_float32_before_resizing). Shrinking is left out as it differs by
    design: Pillow averages over all pixels that OpenCV steps over (`predict --explain` says how
    much that matters).
    """
    with np.load(fixture_path("keras_loading.npz"), allow_pickle=False) as arrays:
        source, keras = arrays["source"][..., ::-1].astype(dtype), arrays[size]
    keywords = {
        "size": (keras.shape[1], keras.shape[0]),
        "swapRB": True,
        "crop": size == "cropped",
    }
    call = BlobCase(source, keywords)
    (blob,) = run_blobs([call])
    assert isinstance(blob, np.ndarray), blob
    expected = keras.transpose(2, 0, 1)[None].astype(np.float32)
    levels = 0.0 if size == "same" else 1 + 255 * 97 * EPS if dtype == "float32" else 2.0
    check_close(blob, expected, np.full(expected.shape, levels), call.text())


def test_keras_preprocessing(pack: Pack) -> None:
    """The NumPy statement of the model's mode gives what Keras' preprocess_input gives, exactly."""
    arrays = pack.load_archive(PREPROCESSING)
    if "keras" not in arrays:
        pytest.skip("Keras has no function for this preprocessing")
    image, keras = arrays["image"], arrays["keras"]
    own = pack.manifest.own
    mode = own["preprocess"]["mode"] if own else get_model(pack.model).mode
    stated = get_mode(mode).apply(image)
    check_close(stated, keras, np.spacing(np.abs(keras)))


def check_close(given: Array, expected: Array, limit: Array, call: str = "") -> None:
    """Fail, naming the worst position, where two arrays differ by more than `limit`."""
    __tracebackhide__ = True
    assert given.shape == expected.shape, call
    assert given.dtype == expected.dtype, call
    difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    if not np.all(difference <= limit):
        share = np.nan_to_num(difference / np.maximum(limit, 1e-300), nan=np.inf)
        worst = np.unravel_index(int(np.argmax(share)), share.shape)
        pytest.fail(
            f"{int((share > 1).sum())} of {share.size} values differ; worst at "
            f"{[int(i) for i in worst]}: {given[worst]:.9g}, should be {expected[worst]:.9g} "
            f"within {limit[worst]:.3g}. {call}",
            pytrace=False,
        )
