"""The file as it is deployed, run by its own runtime: ONNX Runtime, LiteRT. No TensorFlow here.

But for TFLite files where LiteRT is not installed: TensorFlow has the same interpreter.

A format is a module of that name, listed in pack/formats.py, with:

- SETTINGS: ways to run a file, the plainest first; the last is what a user gets without asking.
- describe(path): a File. Raises ConformanceError for what is no such file or can't be judged.
- run(path, images, inner, setting): yield, image by image, the outputs, NHWC, and {inner tensor:
  value} as the runtime has it.
- inference(path, images, threads): a function from one image to the outputs, as users run it.
- operations(path): (tensor, operation's name, its type) of what each operation gives, in order.
- double(path, images): the same in float64, {tensor: value}; Unsupported where there is no such.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from conformance.pack.formats import FORMATS

RUNTIMES: dict[str, ModuleType] = {name: import_module(f".{name}", __name__) for name in FORMATS}
