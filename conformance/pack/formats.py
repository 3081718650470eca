"""The file formats that OpenCV's importers read, and which packages convert to them.

A new importer is an entry here, a module of that name in opencv/importers/ (how OpenCV reads the
file) and one in reference/formats/ (how TensorFlow's graph becomes one), and its extra in
pyproject.toml. No NumPy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A file format other than the frozen graph's own."""

    title: str
    file: str  # the model's name in the conversion's folder
    packages: tuple[str, ...] = ()  # what converts it besides TensorFlow
    extra: str = ""  # of pip
    batches: bool = True  # whether the file takes any number of images; else it takes one


FORMATS = {
    "tflite": Format("TFLite", "model.tflite", batches=False),
    "onnx": Format("ONNX", "model.onnx", ("tf2onnx", "onnx", "onnxruntime"), "onnx"),
}
# The frozen graph is what the first one reads.
IMPORTERS = ("tensorflow", *FORMATS)
# Where none is asked for: the first of these that OpenCV has. TFLite files take no batches.
PREFERRED = ("tensorflow", "onnx", "tflite")
