"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError, first_line

from .file import Array, File, Operation, Setting, Tensor, channels_last, refusing

# Levels of GraphOptimizationLevel, and threads of one operation.
SETTINGS = (
    Setting("no optimisation, 2 threads", ("ORT_DISABLE_ALL", 2)),
    Setting("no optimisation, 1 thread", ("ORT_DISABLE_ALL", 1)),
    Setting("basic optimisation, 2 threads", ("ORT_ENABLE_BASIC", 2)),
    Setting("all optimisations but for fusing, 2 threads", ("ORT_ENABLE_ALL", 2)),
    Setting("all optimisations, 2 threads", ("ORT_ENABLE_ALL", 2), inner=False),
)
_IMPORTER = "onnx"
_CHANNELS = (1, 3)
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


def load(path: Path) -> Any:
    """Return the ModelProto at `path`; raise ConformanceError for what is none, or not all of it.

    Weights in other files would not be in a pack.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, which differs between its back ends
        raise ConformanceError(f"is no ONNX file ({first_line(error, 300)})") from error
    if not model.graph.node or not model.graph.output:
        raise ConformanceError("is no ONNX file: it has no graph with operations and outputs")
    beside = [t.name for t in model.graph.initializer if t.external_data]
    if beside:
        raise ConformanceError(
            f"keeps weights in other files, such as those of {beside[0]!r}: save it as one file "
            "(onnx.save_model(onnx.load(path), path, save_as_external_data=False))"
        )
    return model


def describe(path: Path) -> File:
    """Return what the file says of itself; see conformance.runtimes."""
    model = load(path)
    _check_operators(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    given = _inputs(model)
    if len(given) != 1:
        listed = ", ".join(repr(value.name) for value in given) or "none"
        raise ConformanceError(f"takes {len(given)} inputs ({listed}): expected one, the images")
    image = _tensor(given[0])
    outputs = tuple(map(_tensor, model.graph.output))
    operations = tuple(
        Operation(node.output[0], node.name, node.op_type, tuple(filter(None, node.input)))
        for node in model.graph.node
    )
    fast = sum(_is_winograd(node, weights) for node in model.graph.node)
    return File(image, outputs, operations, _image_layout(image), fast)


def _inputs(model: Any) -> list[Any]:
    """Return the graph's inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _check_operators(model: Any) -> None:
    known = {function.domain for function in model.functions}
    for node in model.graph.node:
        if node.domain not in _OWN_DOMAINS and node.domain not in known:
            raise ConformanceError(
                f"has the custom operator {node.op_type!r} of {node.domain!r} ({node.name!r}), "
                "which ONNX Runtime does not have, so that there is no truth to judge it by: "
                "export it with ONNX's own operators"
            )


def _tensor(value: Any) -> Tensor:
    import onnx

    kind = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    if not kind.HasField("shape"):
        raise ConformanceError(f"does not say how many axes {value.name!r} has: give it a shape")
    sides = kind.shape.dim
    return Tensor(value.name, tuple(side.dim_value or None for side in sides), dtype)


def _layout(image: Tensor) -> Optional[str]:
    """Return where an image has its channels, None of what is none."""
    if len(image.shape) != 4:
        return None
    last = image.shape[3] in _CHANNELS and image.shape[1] not in _CHANNELS
    return "NHWC" if last else "NCHW"


def _image_layout(image: Tensor) -> str:
    """Return the layout of the input; raise ConformanceError for what is no image."""
    layout = _layout(image)
    channels = {"NCHW": 1, "NHWC": 3}
    if image.dtype == "float32" and layout and image.shape[channels[layout]] in _CHANNELS:
        return layout
    raise ConformanceError(
        f"takes {image.name!r}, {image.dtype} {list(image.shape)}: expected float32 images, NCHW "
        "or NHWC, of 3 channels (RGB or BGR) or 1 (grey), the number of channels being known"
    )


def _is_winograd(node: Any, weights: Mapping[str, Any]) -> bool:
    """Return whether OpenCV may run a node as Winograd's F(6x6, 3x3): kernel 3x3, stride 1."""
    if node.op_type != "Conv" or len(node.input) < 2:
        return False
    attributes = {a.name: a for a in node.attribute}
    kernel = weights.get(node.input[1])
    shape = list(kernel.dims[2:]) if kernel else [3, 3]  # of a computed kernel nothing is known
    strides = attributes["strides"].ints if "strides" in attributes else ()
    return shape == [3, 3] and all(step == 1 for step in strides)


def operations(path: Path) -> list[tuple[str, str, str]]:
    """Return (tensor, operation's name, ONNX's type of it) of what each operation gives."""
    import onnx

    return [(node.output[0], node.name, node.op_type) for node in onnx.load(str(path)).graph.node]


def run(
    path: Path, images: Array, inner: bool, setting: Setting = SETTINGS[0]
) -> Iterator[tuple[list[Array], dict[str, Array]]]:
    """Yield, image by image, the outputs, NHWC, and, if asked for, {inner tensor: value}.

    images: float32 NHWC. Raises ConformanceError with ONNX Runtime's reason where it refuses.
    """
    model, results, names = _with_outputs(path, inner)
    layout = _layout_of(model)
    wanted = list(dict.fromkeys([*results, *(names if inner else ())]))
    session, given = _session(model, setting)
    for image in images:
        found = _ask(session, wanted, given, _blob(image, layout))
        values: dict[str, Any] = dict(zip(wanted, found))
        yield [channels_last(values[name], "onnx") for name in results], values if inner else {}


def inference(path: Path, images: Array, threads: int) -> Callable[[Array], list[Array]]:
    """Return what answers one image [H, W, C] after the other as a user's program would.

    images: such as it will be asked. Returns the outputs, NHWC.
    """
    model, results, _ = _with_outputs(path, inner=False)
    level, _ = SETTINGS[-1].options
    session, given = _session(model, replace(SETTINGS[-1], options=(level, threads)))
    layout = _layout_of(model)

    def infer(image: Array) -> list[Array]:
        found = _ask(session, results, given, _blob(image, layout))
        return [channels_last(value, _IMPORTER) for value in found]

    return infer


def _with_outputs(path: Path, inner: bool) -> tuple[Any, list[str], list[str]]:
    """Return the model, its outputs, and those of its operations, which `inner` makes outputs."""
    import onnx

    model = onnx.load(str(path))
    results = [output.name for output in model.graph.output]
    names = [node.output[0] for node in model.graph.node]
    if inner:
        del model.graph.output[:]
        wanted = dict.fromkeys([*names, *results])
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    return model, results, names


def _layout_of(model: Any) -> Optional[str]:
    """Return the layout of the input where it is an image, None of a vector's."""
    return _layout(_tensor(_inputs(model)[0]))


def _session(model: Any, setting: Setting) -> tuple[Any, str]:
    import onnxruntime

    level, threads = setting.options
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    with refusing(_IMPORTER, "read it", Exception):  # ONNX Runtime's are of many kinds
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers)
    return session, session.get_inputs()[0].name


def _blob(image: Array, layout: Optional[str]) -> Array:
    blob = image[None].transpose(0, 3, 1, 2) if layout == "NCHW" else image[None]
    return np.ascontiguousarray(blob)


def _ask(session: Any, wanted: Sequence[str], given: str, blob: Array) -> Any:
    size = " x ".join(map(str, blob.shape))
    with refusing(_IMPORTER, f"run it on an input of {size}", Exception):
        return session.run(wanted, {given: blob})


# What computes in float64.
DOUBLE = "onnx's reference evaluator"


def double(path: Path, images: Array) -> Iterator[dict[str, Array]]:
    """Yield, image by image, {tensor: value} in float64, by onnx's reference evaluator.

    ONNX Runtime has no such convolution. Raises Unsupported for what the evaluator can't run.
    """
    from .double_onnx import evaluator

    model = load(path)
    layout, evaluate = _layout_of(model), evaluator(model, _inputs(model)[0].name)
    for image in images:
        yield evaluate(_blob(image, layout).astype(np.float64))
