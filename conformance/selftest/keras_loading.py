"""What Keras' load_img makes of a small picture, for where Keras is not installed.

``python -m conformance.selftest.keras_loading`` writes it to fixtures/keras_loading.npz.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.fixtures import fixture_path
from conformance.reference.loader import Pixels, load

# Height and width that the picture of 30 x 40 pixels is brought to, cropped or not. What load_img
# cuts off before it resizes, blobFromImage cuts off afterwards: at these factors on the same pixel.
SOURCE = (30, 40)
LOADED = {
    "same": ((30, 40), False),
    "twice": ((60, 80), False),
    "stretched": ((57, 97), False),
    "cropped": ((60, 60), True),
    "shrunk": ((16, 20), False),
}
FIXTURE = "keras_loading.npz"


def fixture_arrays() -> dict[str, Pixels]:
    """Return the picture, RGB, under "source", and what load_img makes of it."""
    photo = load(fixture_path("images/squirrel_cls.jpg"), (120, 160))
    source = np.ascontiguousarray(photo[40 : 40 + SOURCE[0], 60 : 60 + SOURCE[1]])
    loaded = {name: load(source, size, crop) for name, (size, crop) in LOADED.items()}
    return {"source": source, **loaded}


if __name__ == "__main__":
    arrays: dict[str, Any] = dict(fixture_arrays())
    np.savez_compressed(fixture_path("images").parent / FIXTURE, **arrays)
