"""A TFLite file in float64, by NumPy. A second opinion, never the only one.

TFLite has no kernels in float64. What is answered here is used where the runtime's float32 agrees
with it, tensor by tensor (build.py); so an operation that is missing here, or wrong, costs only
that the noise is then told from several answers of the runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Optional

import numpy as np

from .file import Array, Unsupported
from .windows import convolve, windows

Tensors = Mapping[int, Array]
# Given the operation's inputs and its options, returns its output.
Operator = Callable[[list[Any], Any], Any]


def evaluator(schema: Any, data: bytes) -> Callable[[Array], dict[str, Array]]:
    """Return what runs one float64 image, NHWC, through a file, {tensor: value}.

    schema: the module of TFLite's schema; data: the file. Raises Unsupported, as the function does,
    for what can't be run so.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    if len(model.subgraphs) > 1:
        raise Unsupported("the file has graphs inside its graph")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    kinds = [
        names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes
    ]
    activations = {code: n for n, code in vars(schema.ActivationFunctionType).items()}
    constants = _constants(model, graph, schema)
    labels = [_text(tensor.name) for tensor in graph.tensors]

    def evaluate(image: Array) -> dict[str, Array]:
        values: dict[int, Any] = {**constants, int(graph.inputs[0]): image}
        for operation in graph.operators:
            kind = kinds[operation.opcodeIndex]
            found = _apply(kind, operation, values, activations)
            values[int(operation.outputs[0])] = found
        return {labels[n]: v for n, v in values.items() if n not in constants}

    return evaluate


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _constants(model: Any, graph: Any, schema: Any) -> dict[int, Array]:
    """Return the values of the tensors that the file holds, floats in float64."""
    kinds = schema.TensorType
    dtypes = {
        kinds.FLOAT32: np.float32,
        kinds.FLOAT16: np.float16,
        kinds.INT32: np.int32,
        kinds.INT64: np.int64,
        kinds.BOOL: np.bool_,
    }
    found = {}
    for number, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data):
            continue
        if tensor.type not in dtypes:
            raise Unsupported(f"the tensor {_text(tensor.name)!r} holds whole numbers by a scale")
        value: Array = np.frombuffer(bytes(data), dtypes[tensor.type])
        value = value.reshape(() if tensor.shape is None else tuple(tensor.shape))
        found[number] = value.astype(np.float64) if value.dtype.kind == "f" else value
    return found


def _apply(kind: str, operation: Any, values: Tensors, activations: Mapping[int, str]) -> Any:
    if kind not in OPERATORS:
        raise Unsupported(f"{kind} is not known in float64")
    inputs = [values.get(int(index)) for index in operation.inputs]
    options = operation.builtinOptions
    try:
        found = OPERATORS[kind](inputs, options)
    except Exception as error:  # whatever NumPy makes of shapes that do not fit
        raise Unsupported(f"{kind}: {error}") from error
    fused = activations[getattr(options, "fusedActivationFunction", 0)]
    return found if fused == "NONE" else _ACTIVATIONS[fused](found)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


_ACTIVATIONS: dict[str, Callable[[Array], Any]] = {
    "RELU": _relu,
    "RELU6": _relu6,
    "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "TANH": np.tanh,
}


def _how(options: Any) -> dict[str, Any]:
    """Return strides, dilations and padding as windows() takes them."""
    down, across = (getattr(options, f"dilation{side}Factor", 1) for side in "HW")
    return {
        "strides": (options.strideH, options.strideW),
        "dilations": (down, across),
        "auto_pad": ("SAME_UPPER", "VALID")[options.padding],
    }


def _first(x: Array) -> Array:
    return x.transpose(0, 3, 1, 2)


def _last(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1)


def _convolution(inputs: list[Any], options: Any) -> Any:
    x, kernel, bias = _with_bias(inputs)
    group = x.shape[3] // kernel.shape[3]
    return _last(convolve(_first(x), _first(kernel), group, **_how(options))) + bias


def _depthwise(inputs: list[Any], options: Any) -> Any:
    x, kernel, bias = _with_bias(inputs)
    own = kernel.transpose(3, 0, 1, 2).reshape(-1, 1, *kernel.shape[1:3])
    return _last(convolve(_first(x), own, x.shape[3], **_how(options))) + bias


def _with_bias(inputs: list[Any]) -> list[Any]:
    return inputs if len(inputs) > 2 and inputs[2] is not None else [*inputs[:2], 0.0]


def _fully_connected(inputs: list[Any], options: Any) -> Any:
    x, kernel, bias = _with_bias(inputs)
    found = x.reshape(-1, kernel.shape[1]) @ kernel.T + bias
    return found.reshape(*x.shape[:-1], -1) if options.keepNumDims else found


def _pool(inputs: list[Any], options: Any, average: bool) -> Any:
    x, kernel = _first(inputs[0]), (options.filterHeight, options.filterWidth)
    if not average:
        return _last(windows(x, kernel, fill=-np.inf, **_how(options)).max(axis=(4, 5)))
    total = windows(x, kernel, **_how(options)).sum(axis=(4, 5))
    counted = windows(np.ones_like(x[:1, :1]), kernel, **_how(options)).sum(axis=(4, 5))
    return _last(total / counted)


def _softmax(inputs: list[Any], options: Any) -> Any:
    x = inputs[0] * options.beta
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _reduced(function: Callable[..., Any]) -> Operator:
    def reduce(inputs: list[Any], options: Any) -> Any:
        axes = tuple(int(axis) for axis in np.atleast_1d(inputs[1]))
        return function(inputs[0], axis=axes, keepdims=options.keepDims)

    return reduce


def _reshape(inputs: list[Any], options: Any) -> Any:
    given = len(inputs) > 1 and inputs[1] is not None
    return inputs[0].reshape(tuple(inputs[1] if given else options.newShape))


def _pad(inputs: list[Any], _: Any) -> Any:
    value = float(inputs[2]) if len(inputs) > 2 else 0.0
    return np.pad(inputs[0], inputs[1].tolist(), constant_values=value)


def _mirror_pad(inputs: list[Any], options: Any) -> Any:
    return np.pad(inputs[0], inputs[1].tolist(), mode=("reflect", "symmetric")[options.mode])


def _strided_slice(inputs: list[Any], options: Any) -> Any:
    x, begins, ends, steps = inputs
    if options.ellipsisMask or options.newAxisMask:
        raise NotImplementedError("an ellipsis or a new axis")
    parts: list[Any] = []
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps)):
        if options.shrinkAxisMask >> axis & 1:
            parts.append(int(begin))
            continue
        first: Optional[int] = None if options.beginMask >> axis & 1 else int(begin)
        parts.append(slice(first, None if options.endMask >> axis & 1 else int(end), int(step)))
    return x[tuple(parts)]


def _gelu(inputs: list[Any], options: Any) -> Any:
    (x,) = inputs
    if options.approximate:
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _unary(function: Callable[[Any], Any]) -> Operator:
    return lambda inputs, _: function(inputs[0])


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda inputs, _: function(*inputs)


OPERATORS: dict[str, Operator] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": lambda inputs, options: _pool(inputs, options, average=False),
    "AVERAGE_POOL_2D": lambda inputs, options: _pool(inputs, options, average=True),
    "SOFTMAX": _softmax,
    "MEAN": _reduced(np.mean),
    "SUM": _reduced(np.sum),
    "REDUCE_MAX": _reduced(np.max),
    "REDUCE_MIN": _reduced(np.min),
    "RESHAPE": _reshape,
    "SQUEEZE": lambda inputs, options: np.squeeze(inputs[0], tuple(options.squeezeDims) or None),
    "EXPAND_DIMS": lambda inputs, _: np.expand_dims(inputs[0], int(inputs[1])),
    "TRANSPOSE": lambda inputs, _: inputs[0].transpose(inputs[1]),
    "CONCATENATION": lambda inputs, options: np.concatenate(inputs, axis=options.axis),
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _mirror_pad,
    "STRIDED_SLICE": _strided_slice,
    "BATCH_MATMUL": lambda inputs, options: np.matmul(
        np.swapaxes(inputs[0], -1, -2) if options.adjX else inputs[0],
        np.swapaxes(inputs[1], -1, -2) if options.adjY else inputs[1],
    ),
    "GELU": _gelu,
    "LEAKY_RELU": lambda inputs, options: np.where(
        inputs[0] > 0, inputs[0], inputs[0] * options.alpha
    ),
    "PRELU": _binary(lambda x, alpha: np.where(x > 0, x, x * alpha)),
    "ELU": _unary(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "HARD_SWISH": _unary(lambda x: x * _relu6(x + 3) / 6),
    # Of float16 weights: they were read as what they are.
    "DEQUANTIZE": _unary(lambda x: x),
    "RELU": _unary(_relu),
    "RELU6": _unary(_relu6),
    "LOGISTIC": _unary(lambda x: 1 / (1 + np.exp(-x))),
    "TANH": _unary(np.tanh),
    "EXP": _unary(np.exp),
    "LOG": _unary(np.log),
    "SQRT": _unary(np.sqrt),
    "RSQRT": _unary(lambda x: 1 / np.sqrt(x)),
    "SQUARE": _unary(np.square),
    "ABS": _unary(np.abs),
    "NEG": _unary(np.negative),
    "ADD": _binary(np.add),
    "SUB": _binary(np.subtract),
    "MUL": _binary(np.multiply),
    "DIV": _binary(np.divide),
    "MAXIMUM": _binary(np.maximum),
    "MINIMUM": _binary(np.minimum),
    "POW": _binary(np.power),
    "SQUARED_DIFFERENCE": _binary(lambda x, y: (x - y) ** 2),
}
