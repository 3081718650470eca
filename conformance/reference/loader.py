"""Images loaded as Keras' users load them: ``keras.utils.load_img``, bilinear."""

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
from conformance.models import ModelSpec

Pixels = NDArray[np.uint8]


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
