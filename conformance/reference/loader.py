"""Images loaded as Keras' users load them: ``keras.utils.load_img``, bilinear.

``python -m conformance.reference.loader`` writes fixtures/keras_loading.npz, which holds what it
makes of a small picture, for where Keras is not installed.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.models import ModelSpec

Pixels = NDArray[np.uint8]

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


def load(
    image: Union[Path, Pixels], size: Optional[tuple[int, int]] = None, crop: bool = False
) -> Pixels:
    """Return what ``load_img`` gives for a file, or for RGB pixels: uint8 [H, W, 3], RGB.

    size: (height, width) to resize to, bilinearly (the default of load_img is the nearest pixel).
    crop: keep_aspect_ratio, which cuts out the centre first. Raises ConformanceError, naming the
    file, for what Pillow can't read.
    """
    source: Any = image
    if isinstance(image, np.ndarray):
        source = BytesIO()
        Image.fromarray(image).save(source, "PNG")
        source.seek(0)
    try:
        loaded = tf.keras.utils.load_img(
            source, target_size=size, interpolation="bilinear", keep_aspect_ratio=crop
        )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConformanceError(f"Keras' load_img can't read {image}: {error}") from error
    return np.asarray(loaded)


def keras_preprocess(spec: ModelSpec, rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Return what the model's own ``preprocess_input`` makes of RGB pixels [N, H, W, 3], 0-255."""
    module = sys.modules[getattr(tf.keras.applications, spec.builder).__module__]
    return np.asarray(module.preprocess_input(rgb.astype(np.float32)))


def fixture_arrays() -> dict[str, Pixels]:
    """Return the picture, RGB, under "source", and what load_img makes of it."""
    photo = load(fixture_path("images/squirrel_cls.jpg"), (120, 160))
    source = np.ascontiguousarray(photo[40 : 40 + SOURCE[0], 60 : 60 + SOURCE[1]])
    loaded = {name: load(source, size, crop) for name, (size, crop) in LOADED.items()}
    return {"source": source, **loaded}


if __name__ == "__main__":
    arrays: dict[str, Any] = dict(fixture_arrays())
    np.savez_compressed(fixture_path("images").parent / FIXTURE, **arrays)
