"""TFLite files, run by LiteRT where it is installed, else by the interpreter of TensorFlow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import ConformanceError
from conformance.pack.formats import LITERT
from conformance.pack.heads import by_scale
from conformance.pack.request import runtime_versions
from conformance.processes.quiet import quiet

from .file import Array, File, Operation, Setting, Tensor, refusing

# Names of OpResolverType, and threads. A delegate computes no inner tensors; XNNPACK is the one
# that a user gets without asking.
SETTINGS = (
    Setting("plain kernels, 2 threads", ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", 2)),
    Setting("plain kernels, 1 thread", ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", 1)),
    Setting("reference kernels", ("BUILTIN_REF", 1)),
    Setting("XNNPACK, 2 threads", ("BUILTIN", 2), inner=False),
)
_IMPORTER = "tflite"
_WHOLE = ("int8", "uint8", "int16")
_IDENTIFIER = b"TFL3"


def _litert() -> bool:
    return LITERT in (runtime_versions(_IMPORTER) or ())


def describe(path: Path) -> File:
    """Return what the file says of itself; see conformance.runtimes."""
    if path.read_bytes()[4:8] != _IDENTIFIER:
        raise ConformanceError("is no TFLite file: it has not the identifier TFL3")
    interpreter = _interpreter(path, SETTINGS[0], keep=False)
    given, results = interpreter.get_input_details(), interpreter.get_output_details()
    if len(given) != 1:
        listed = ", ".join(repr(one["name"]) for one in given) or "none"
        raise ConformanceError(f"takes {len(given)} inputs ({listed}): expected one, the images")
    details = {one["index"]: _tensor(one) for one in interpreter.get_tensor_details()}
    image = details[given[0]["index"]]
    if len(image.shape) != 4 or image.dtype not in ("float32", "int8", "uint8"):
        raise ConformanceError(
            f"takes {image.name!r}, {image.dtype} {list(image.shape)}: expected images, NHWC, in "
            "float32, int8 or uint8"
        )
    if image.dtype != "float32" and not image.step:
        raise ConformanceError(f"takes {image.name!r}, {image.dtype}, without a scale")
    found = interpreter._get_ops_details()
    operations = tuple(
        Operation(details[o["outputs"][0]].name, "", o["op_name"], _names(details, o["inputs"]))
        for o in found
        if len(o["outputs"])
    )
    outputs = tuple(details[one["index"]] for one in results)
    whole = {one.name: one for one in details.values() if one.step}
    notes = _quantised(image, outputs, found, details)
    fast = sum(_is_winograd(details, one) for one in found)
    return File(image, outputs, operations, "NHWC", fast, whole, notes)


def _names(details: Mapping[int, Tensor], indices: Any) -> tuple[str, ...]:
    return tuple(details[index].name for index in indices if index >= 0)


def _tensor(detail: Mapping[str, Any]) -> Tensor:
    dtype, scales = np.dtype(detail["dtype"]).name, detail["quantization_parameters"]["scales"]
    shape = tuple(
        None if side < 0 else int(side)
        for side in (
            detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
        )
    )
    if dtype not in _WHOLE or len(scales) != 1:
        return Tensor(detail["name"], shape, dtype)
    zero = int(detail["quantization_parameters"]["zero_points"][0])
    return Tensor(detail["name"], shape, dtype, float(scales[0]), zero)


def _quantised(
    image: Tensor, outputs: tuple[Tensor, ...], found: Any, details: Mapping[int, Tensor]
) -> tuple[str, ...]:
    """Return what is to be known of a file that computes in whole numbers."""
    notes = []
    heavy = [o for o in found if o["op_name"] in ("CONV_2D", "FULLY_CONNECTED")]
    kinds = {tuple(details[i].dtype for i in o["inputs"][:2]) for o in heavy}
    if ("float32", "int8") in kinds:
        notes.append(
            "its weights are int8 and its values float32 (a dynamic-range, or hybrid, file)"
        )
    if any(first in _WHOLE for first, *_ in kinds):
        ends = " to ".join(dict.fromkeys([image.dtype, *(one.dtype for one in outputs)]))
        notes.append(
            f"it computes in whole numbers ({ends}): judged by its runtime's own answer, in steps "
            "of the outputs' scale; there is no float64 of it"
        )
    return tuple(notes)


def _is_winograd(details: Mapping[int, Tensor], operation: Any) -> bool:
    """Return whether OpenCV may run an operation as Winograd's; its strides are not known here."""
    if operation["op_name"] != "CONV_2D":
        return False
    return details[operation["inputs"][1]].shape[1:3] == (3, 3)


def operations(path: Path) -> list[tuple[str, str, str]]:
    """Return (tensor, operation's name, TFLite's type of it) of each operation; none has a name."""
    interpreter = _interpreter(path, SETTINGS[0], keep=False)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    return [(names[op["outputs"][0]], "", op["op_name"]) for op in interpreter._get_ops_details()]


def ends(path: Path) -> tuple[str, str]:
    """Return the names of the file's input and first output."""
    interpreter = _interpreter(path, SETTINGS[0], keep=False)
    found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    return found[0]["name"], found[1]["name"]


def run(
    path: Path, images: Array, inner: bool, setting: Setting = SETTINGS[0]
) -> Iterator[tuple[list[Array], dict[str, Array]]]:
    """Yield, image by image, the outputs, NHWC, and, if asked for, {inner tensor: value}.

    images: NHWC, of the type of the file's input. What is in whole numbers becomes float32 by its
    scale. Raises ConformanceError with the interpreter's reason where it refuses.
    """
    interpreter, given = _ready(path, images, setting, inner)
    details = {detail["index"]: _tensor(detail) for detail in interpreter.get_tensor_details()}
    inside = [op["outputs"][0] for op in interpreter._get_ops_details()] if inner else []
    results = [detail["index"] for detail in interpreter.get_output_details()]

    def value(index: int) -> Array:
        return _by_scale(np.array(interpreter.get_tensor(index)), details[index])

    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        _refusing(interpreter.invoke)
        yield [value(n) for n in results], {details[n].name: value(n) for n in inside}


def inference(path: Path, images: Array, threads: int) -> Callable[[Array], list[Array]]:
    """Return what answers one image [H, W, C] after the other as a user's program would.

    images: such as it will be asked. Returns the outputs, NHWC.
    """
    kernels, _ = SETTINGS[-1].options
    setting = replace(SETTINGS[-1], options=(kernels, threads))
    interpreter, given = _ready(path, images, setting, inner=False)

    def infer(image: Array) -> list[Array]:
        interpreter.set_tensor(given["index"], image[None])
        _refusing(interpreter.invoke)
        results = interpreter.get_output_details()
        return [_by_scale(interpreter.get_tensor(o["index"]), _tensor(o)) for o in results]

    return infer


def _ready(path: Path, images: Array, setting: Setting, inner: bool) -> tuple[Any, Any]:
    """Return an interpreter that takes one of the images, and the details of its input."""
    interpreter = _interpreter(path, setting, keep=inner)
    (given,) = interpreter.get_input_details()
    if list(given["shape"]) != [1, *images.shape[1:]]:
        interpreter.resize_tensor_input(given["index"], [1, *images.shape[1:]])
    _refusing(interpreter.allocate_tensors)
    return interpreter, given


def _by_scale(value: Array, tensor: Tensor) -> Array:
    """Return a tensor's value, by its scale where it holds whole numbers."""
    return by_scale(value, tensor.step, tensor.zero) if tensor.step else value


# What computes in float64.
DOUBLE = "NumPy"


def double(path: Path, images: Array) -> Iterator[dict[str, Array]]:
    """Yield, image by image, {tensor: value} in float64, by NumPy: TFLite has no such kernels.

    Raises Unsupported for what is not known there.
    """
    from .double_tflite import evaluator

    evaluate = evaluator(_schema(), path.read_bytes())
    for image in images:
        yield evaluate(image[None].astype(np.float64))


def _refusing(do: Any) -> None:
    with refusing(_IMPORTER, "run it", RuntimeError, ValueError), quiet():
        do()


def _interpreter(path: Path, setting: Setting, keep: bool) -> Any:
    kernels, threads = setting.options
    module = _module()
    refused = refusing(_IMPORTER, "read it", RuntimeError, ValueError)
    with refused, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # TensorFlow's is to move to a package of its own
        return module.Interpreter(
            str(path),
            experimental_op_resolver_type=getattr(module.OpResolverType, kernels),
            experimental_preserve_all_tensors=keep,
            num_threads=threads,
        )


def _module() -> Any:
    """Return the module with the interpreter."""
    if _litert():
        return import_module("ai_edge_litert.interpreter")
    return import_module("tensorflow.lite.python.interpreter")


def _schema() -> Any:
    """Return the module of TFLite's schema that comes with the interpreter."""
    package = "ai_edge_litert" if _litert() else "tensorflow.lite.python"
    return import_module(f"{package}.schema_py_generated")
