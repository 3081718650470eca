"""The tutorial's own MobileNet run, step by step, to be timed as a whole process.

Random weights instead of a download, and legacy Keras (TF_USE_LEGACY_KERAS=1), for which the
tutorial was written: OpenCV cannot read what its recipe makes of Keras 3.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def main(image: str) -> None:
    """Freeze MobileNet, read it with OpenCV, predict with both, print both classes."""
    model = tf.keras.applications.MobileNet(include_top=True, weights=None)
    with tempfile.TemporaryDirectory() as folder:
        function = tf.function(lambda x: model(x)).get_concrete_function(
            tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
        )
        frozen = convert_variables_to_constants_v2(function)
        tf.io.write_graph(frozen.graph, folder, "mobilenet.pb", as_text=False)
        net = cv2.dnn.readNetFromTensorflow(str(Path(folder) / "mobilenet.pb"))
    picture = np.asarray(cv2.imread(image, cv2.IMREAD_COLOR), np.float32)
    mean = (127.5, 127.5, 127.5)
    blob = cv2.dnn.blobFromImage(picture, 1 / 127.5, (224, 224), mean, swapRB=True, crop=True)
    net.setInput(blob)
    answers = net.forward(), model(blob.transpose(0, 2, 3, 1))
    print("OpenCV, TensorFlow:", *(int(np.argmax(answer)) for answer in answers))


if __name__ == "__main__":
    main(sys.argv[1])
