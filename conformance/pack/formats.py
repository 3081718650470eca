"""The file formats that OpenCV's importers read, and which packages convert to them.

A new importer is an entry here, a module of that name in opencv/importers/ (how OpenCV reads the
file), one in reference/formats/ (how TensorFlow's graph becomes one) and one in runtimes/ (what its
own runtime answers), and its extra in pyproject.toml. No NumPy is imported here.
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
    # What runs the file as it is: one of the first group, and all of the others, by distributions.
    runtime: tuple[tuple[str, ...], ...] = ()
    runtime_extra: str = ""


LITERT = "ai-edge-litert"
TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly")
# What distributions are called.
TITLES = {
    LITERT: "LiteRT",
    "onnxruntime": "ONNX Runtime",
    **dict.fromkeys(TENSORFLOW, "TensorFlow"),
}

FORMATS = {
    "onnx": Format(
        "ONNX",
        "model.onnx",
        ("tf2onnx", "onnx", "onnxruntime"),
        "onnx",
        runtime=(("onnxruntime",), ("onnx",)),
        runtime_extra="onnx",
    ),
    "tflite": Format(
        "TFLite",
        "model.tflite",
        batches=False,
        runtime=((LITERT, *TENSORFLOW),),
        runtime_extra="litert",
    ),
}
# The frozen graph is what the first one reads. Where none is asked for, the first of these is taken
# that OpenCV has: TFLite files take no batches.
IMPORTERS = ("tensorflow", *FORMATS)
