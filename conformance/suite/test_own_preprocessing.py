"""What blobFromImage makes of an image, as a model of the user's is said to take it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conformance.inputs.preprocessing import preprocessing_from
from conformance.opencv.blobs import BlobCase, run_blobs
from conformance.pack.format import Pack

pytestmark = [pytest.mark.stage("preprocessing"), pytest.mark.own]

EPS = 2.0**-23  # of float32


def test_own_blob(pack: Pack) -> None:
    """blobFromImage with the model's figures, then divided by std, gives the model's input.

    Both round four times at most, on values as large as 255 and the mean, which are then scaled.
    """
    assert pack.manifest.own is not None
    own = preprocessing_from(pack.manifest.own["preprocess"])
    image = np.random.default_rng(5).integers(0, 256, (48, 64, 3), np.uint8)
    call = replace(own, size=image.shape[:2], crop=False).call()
    (given,) = run_blobs([BlobCase(image, call.keywords())])
    assert not isinstance(given, str), given
    expected = own.apply(image[None, ..., ::-1]).transpose(0, 3, 1, 2)
    size = (255 + max(map(abs, own.mean))) * abs(own.scale)
    limit = 4 * EPS * size / min(map(abs, own.std or (1.0,)))
    worst = float(np.abs(own.divide(given) - expected).max())
    assert worst <= limit, f"strays by {worst:.3g}, allowed {limit:.3g} ({own.mode or own})"
