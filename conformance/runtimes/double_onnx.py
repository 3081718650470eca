"""An ONNX model in float64, by onnx's reference evaluator. A second opinion, never the only one.

onnx's evaluator computes some operations wrong (1.23: BatchNormalization of opsets 9 to 13), and
others by loops of Python. Those that classifiers spend their time on are written here anew; what it
answers is used where ONNX Runtime's float32 agrees with it, tensor by tensor (build.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.errors import first_line

from .file import Array, Unsupported
from .windows import convolve, windows

Evaluate = Callable[[Array], dict[str, Array]]


def evaluator(model: Any, given: str) -> Evaluate:
    """Return what runs a float64 input through an ONNX `model`, {tensor: value}.

    given: the name of the input. The model is changed: its float32 weights become float64, which
    holds them exactly. Raises Unsupported, as the function does, for what can't be run so.
    """
    from onnx.reference import ReferenceEvaluator

    _promote(model)
    try:
        reference = ReferenceEvaluator(model, new_ops=_operators())
    except Exception as error:  # whatever its loader raises
        raise Unsupported(first_line(error, 200)) from error

    def evaluate(blob: Array) -> dict[str, Array]:
        try:
            values = reference.run(None, {given: blob}, intermediate=True)
        except Exception as error:  # whatever an operation raises
            raise Unsupported(first_line(error, 200)) from error
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    return evaluate


def _promote(model: Any) -> None:
    """Make each float32 tensor of the model one of float64; raise Unsupported for inner graphs."""
    import onnx

    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    for tensor in model.graph.initializer:
        _promote_tensor(tensor)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    del model.graph.value_info[:]
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise Unsupported(f"{node.op_type} {node.name!r} has a graph inside")
            if attribute.HasField("t"):
                _promote_tensor(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
                attribute.i = double
        _promote_constant(node)


def _promote_tensor(tensor: Any) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT:
        value = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _promote_constant(node: Any) -> None:
    """Write a Constant's number, or list of numbers, as a tensor of float64."""
    from onnx import helper, numpy_helper

    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name in ("value_float", "value_floats"):
            value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            tensor = numpy_helper.from_array(np.array(value, np.float64))
            attribute.CopyFrom(helper.make_attribute("value", tensor))


def _operators() -> list[Any]:
    """Return classes that take the place of the evaluator's own for some operations."""
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any, *statistics: Any, epsilon: Any = None, **_: Any) -> Any:
            scale, offset, mean, variance = (_per_channel(s, x.ndim) for s in statistics)
            least = 1e-5 if epsilon is None else epsilon
            return ((x - mean) / np.sqrt(variance + least) * scale + offset,)

    class Conv(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any, kernel: Any, bias: Any = None, **how: Any) -> Any:
            found = convolve(x, kernel, **how)
            return (found if bias is None else found + _per_channel(bias, found.ndim),)

    class MaxPool(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any, kernel_shape: Any = None, **how: Any) -> Any:
            return (windows(x, kernel_shape, fill=-np.inf, **how).max(axis=(4, 5)),)

    class AveragePool(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(
            self, x: Any, kernel_shape: Any = None, count_include_pad: Any = None, **how: Any
        ) -> Any:
            if how.get("ceil_mode"):
                raise NotImplementedError("AveragePool with ceil_mode")
            total = windows(x, kernel_shape, **how).sum(axis=(4, 5))
            counted = np.ones_like(x[:1, :1])
            count = windows(counted, kernel_shape, **how).sum(axis=(4, 5))
            return (total / (np.prod(kernel_shape) if count_include_pad else count),)

    return [BatchNormalization, Conv, MaxPool, AveragePool]


def _per_channel(values: Array, axes: int) -> Array:
    return values.reshape(-1, *(1,) * (axes - 2))
