"""The operations that generated models are made of: each attribute with all its values, as data.

The first value of an attribute is its plainest: shrinking a model goes back to it. An operation
whose name is a class of ``keras.layers`` is that layer; the others are functions, which
reference/generated.py writes out (`function` says how a reader would).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from . import shapes
from .shapes import ShapeOf

Values = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Operation:
    """One operation."""

    shape: ShapeOf  # of one input; merges take several of the same shape, see `merges`
    attributes: Values = field(default_factory=dict)  # each attribute's values, the plainest first
    fixed: Mapping[str, Any] = field(default_factory=dict)  # attributes that are always so
    takes: tuple[int, ...] = (3,)  # ranks of its input: 3 an image, 1 a vector
    function: str = ""  # a template of its words, where it is no layer of Keras
    positive: bool = False  # whether it must be given values well above 0
    gives_positive: bool = False  # whether its values are all well above 0
    merges: bool = False  # whether it takes two inputs


_SQUARE = ((3, 3), (1, 1), (2, 2), (4, 4), (5, 5), (6, 6), (7, 7), (5, 3), (1, 3), (3, 1))
_PADDING = ("valid", "same")
_AXES = ((1, 2), (1,), (2,), (3,), (1, 2, 3))
_YES = (True, False)
_WINDOWS = {
    "pool_size": ((2, 2), (3, 3), (3, 2)),
    "strides": ((2, 2), (1, 1), (3, 3), (2, 1)),
    "padding": _PADDING,
}
_BOTH = (3, 1)


def _of_values(function: str, **given: Any) -> Operation:
    """Return a function of single values of Keras', such as "ops.abs"."""
    return Operation(shapes.same, takes=_BOTH, function=f"keras.{function}({{x}})", **given)


# Those of keras.activations that a graph of convolutions has a use for. glu (which halves the
# channels), sparsemax and threshold (which need arguments or a sort) are left out.
ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "sigmoid", "hard_sigmoid"),
    *("log_sigmoid", "tanh", "hard_tanh", "tanh_shrink", "hard_shrink", "soft_shrink", "softplus"),
    *("softsign", "silu", "hard_silu", "mish", "exponential", "squareplus", "sparse_plus"),
    *("sparse_sigmoid", "log_softmax"),
)
# Those whose values are well above 0.
_POSITIVE = ("softplus", "exponential", "squareplus")

ARITHMETIC = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
_CONSTANT = {
    "of": ("channels", "scalar", "pixels", "rows", "columns", "all"),
    "side": ("right", "left"),
}
MATHS = ("abs", "square", "negative", "sqrt", "rsqrt", "log", "reciprocal", "power", "clip")
REDUCTIONS = ("mean", "sum", "max", "min")

OPERATIONS: dict[str, Operation] = {
    "Conv2D": Operation(
        shapes.convolution,
        {
            "kernel_size": _SQUARE,
            "strides": ((1, 1), (2, 2), (3, 3), (2, 1)),
            "padding": _PADDING,
            "dilation_rate": ((1, 1), (2, 2), (1, 2)),
            "groups": (1, 2, 4),
            "use_bias": _YES,
        },
        {"filters": 8},
    ),
    "DepthwiseConv2D": Operation(
        shapes.depthwise,
        {
            "kernel_size": ((3, 3), (1, 1), (5, 5), (2, 3)),
            "strides": ((1, 1), (2, 2)),
            "padding": _PADDING,
            "depth_multiplier": (1, 2),
            "dilation_rate": ((1, 1), (2, 2)),
            "use_bias": _YES,
        },
    ),
    "SeparableConv2D": Operation(
        shapes.convolution,
        {
            "kernel_size": ((3, 3), (1, 1), (5, 5)),
            "strides": ((1, 1), (2, 2)),
            "padding": _PADDING,
            "depth_multiplier": (1, 2),
            "dilation_rate": ((1, 1), (2, 2)),
            "use_bias": _YES,
        },
        {"filters": 8},
    ),
    "Conv2DTranspose": Operation(
        shapes.transposed,
        {
            "kernel_size": ((3, 3), (2, 2), (4, 4), (1, 1), (2, 3)),
            "strides": ((1, 1), (2, 2), (3, 3), (2, 1)),
            "padding": _PADDING,
            "use_bias": _YES,
        },
        {"filters": 8},
    ),
    "Dense": Operation(shapes.dense, {"use_bias": _YES}, {"units": 8}, _BOTH),
    "BatchNormalization": Operation(
        shapes.same, {"scale": _YES, "center": _YES, "epsilon": (0.001, 0.1)}, takes=_BOTH
    ),
    # The one operation of legacy Keras and TensorFlow 1; Keras 3 writes arithmetic instead.
    "FusedBatchNorm": Operation(
        shapes.same,
        {"epsilon": (0.001, 0.1)},
        function="tf.compat.v1.nn.fused_batch_norm({x}, scale, offset, mean, variance{rest}, "
        "is_training=False)[0]",
    ),
    "LayerNormalization": Operation(shapes.same, {"scale": _YES, "center": _YES}, takes=_BOTH),
    "GroupNormalization": Operation(shapes.same, {"groups": (4, 2, 1, -1)}),
    "UnitNormalization": Operation(shapes.same, {"axis": (-1, 1)}, takes=_BOTH),
    **{
        name: _of_values(f"activations.{name}", gives_positive=name in _POSITIVE)
        for name in ACTIVATIONS
    },
    "ReLU": Operation(
        shapes.same,
        {"max_value": (None, 6.0, 1.0), "negative_slope": (0.0, 0.1), "threshold": (0.0, 0.5)},
        takes=_BOTH,
    ),
    "LeakyReLU": Operation(shapes.same, {"negative_slope": (0.3, 0.01)}, takes=_BOTH),
    "PReLU": Operation(shapes.same, {"shared_axes": ((1, 2), None, (1,))}),
    "Softmax": Operation(shapes.same, {"axis": (-1, 1, 2)}),
    "MaxPooling2D": Operation(shapes.pooled, _WINDOWS),
    "AveragePooling2D": Operation(shapes.pooled, _WINDOWS),
    "GlobalAveragePooling2D": Operation(shapes.globally, {"keepdims": (False, True)}),
    "GlobalMaxPooling2D": Operation(shapes.globally, {"keepdims": (False, True)}),
    "ZeroPadding2D": Operation(
        shapes.padded, {"padding": (((1, 1), (1, 1)), ((0, 1), (0, 1)), ((2, 0), (1, 3)))}
    ),
    "Cropping2D": Operation(
        shapes.cropped, {"cropping": (((1, 1), (1, 1)), ((0, 1), (0, 1)), ((2, 0), (1, 3)))}
    ),
    "UpSampling2D": Operation(
        shapes.upsampled, {"size": ((2, 2), (3, 2)), "interpolation": ("nearest", "bilinear")}
    ),
    "Resizing": Operation(
        shapes.resized,
        {"height": (12, 7, 20), "width": (12, 9, 20), "interpolation": ("bilinear", "nearest")},
    ),
    "Rescaling": Operation(shapes.same, {"scale": (0.5, -2.0), "offset": (0.0, 0.25)}, takes=_BOTH),
    "Normalization": Operation(
        shapes.same, function="keras.layers.Normalization(mean, variance)({x})"
    ),
    "Flatten": Operation(shapes.flat),
    "Reshape": Operation(
        shapes.reshaped,
        {"form": ("flat", "wide", "tall", "swapped", "halved")},
        function="keras.layers.Reshape({target})({x})",
    ),
    "Permute": Operation(
        shapes.permuted, {"dims": ((2, 1, 3), (3, 1, 2), (1, 3, 2), (2, 3, 1), (3, 2, 1))}
    ),
    **{name: _of_values(f"ops.{name}") for name in ("abs", "square", "negative")},
    **{
        name: _of_values(f"ops.{name}", positive=True, gives_positive=name != "log")
        for name in ("sqrt", "rsqrt", "log", "reciprocal")
    },
    "power": Operation(
        shapes.same,
        {"exponent": (0.75, 3.0, -1.5)},
        takes=_BOTH,
        function="keras.ops.power({x}, {exponent})",
        positive=True,
    ),
    "clip": Operation(
        shapes.same,
        {"low": (-0.5, 0.0), "high": (0.5, 6.0)},
        takes=_BOTH,
        function="keras.ops.clip({x}, {low}, {high})",
    ),
    **{
        f"{name}_constant": Operation(
            shapes.broadcast,
            _CONSTANT,
            takes=_BOTH,
            function=f"keras.ops.{name}({{operands}})",
            positive=name == "divide",
        )
        for name in ARITHMETIC
    },
    **{
        f"reduce_{name}": Operation(
            shapes.reduced,
            {"axis": _AXES, "keepdims": (True, False)},
            function=f"keras.ops.{name}({{x}}, axis={{axis}}, keepdims={{keepdims}})",
        )
        for name in REDUCTIONS
    },
    "pad": Operation(
        shapes.padded,
        {
            "mode": ("constant", "reflect", "symmetric"),
            "padding": (((1, 1), (1, 1)), ((0, 1), (2, 0))),
        },
        function="keras.ops.pad({x}, ((0, 0), *{padding}, (0, 0)), mode={mode})",
    ),
    "slice": Operation(
        shapes.sliced,
        {
            "slices": (
                ((1, None, 1), (1, None, 1), (None, None, 1)),
                ((None, None, 2), (None, None, 2), (None, None, 1)),
                ((1, -1, 1), (None, -2, 1), (None, None, 1)),
                ((None, None, 1), (None, None, 1), (2, 6, 1)),
                ((None, None, 1), (None, None, 1), (None, None, 2)),
            )
        },
        function="{x}[{slices}]",
    ),
    "split": Operation(
        shapes.split,
        {"axis": (3, 1, 2), "parts": (2, 4), "part": (0, 1)},
        function="keras.ops.split({x}, {parts}, axis={axis})[{part}]",
    ),
    "space_to_depth": Operation(
        shapes.to_depth, {"block_size": (2, 3)}, function="tf.nn.space_to_depth({x}, {block_size})"
    ),
    "depth_to_space": Operation(
        shapes.to_space, {"block_size": (2,)}, function="tf.nn.depth_to_space({x}, {block_size})"
    ),
    "local_response_normalization": Operation(
        shapes.same,
        {"depth_radius": (2, 1), "alpha": (0.5, 1.0), "beta": (0.75, 0.5)},
        function="tf.nn.local_response_normalization({x}, {depth_radius}, 1.0, {alpha}, {beta})",
    ),
    "argmax": Operation(
        shapes.reduced,
        {"axis": ((3,), (1,), (2,))},
        {"keepdims": True},
        function="tf.cast(tf.argmax({x}, {axis}), 'float32'), with that axis kept",
    ),
    "attention": Operation(
        shapes.same,
        function="softmax(Q @ Kᵀ / sqrt(d)) @ V over the pixels; Q, K, V: Dense({x})",
    ),
    "squeeze_and_excite": Operation(
        shapes.same,
        {"gate": ("sigmoid", "hard_sigmoid")},
        function="{x} * keras.activations.{gate}(Dense(relu(Dense(mean of {x} over H and W))))",
    ),
    **{
        name: Operation(shapes.same, takes=_BOTH, merges=True)
        for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average")
    },
    "Concatenate": Operation(shapes.same, {"axis": (-1, 1, 2)}, takes=_BOTH, merges=True),
}

# In how many of the registry's 40 models an operation is found, activations within other layers
# counted too: what pairs of operations are drawn first, and how the report weighs them.
REGISTRY: dict[str, int] = {
    "Conv2D": 40,
    "Softmax": 40,
    "GlobalAveragePooling2D": 38,
    "Dense": 37,
    "BatchNormalization": 33,
    "Add": 32,
    "relu": 26,
    "ZeroPadding2D": 23,
    "DepthwiseConv2D": 19,
    "squeeze_and_excite": 17,
    "Multiply": 17,
    "Rescaling": 17,
    "sigmoid": 17,
    "Normalization": 17,
    "MaxPooling2D": 16,
    "Reshape": 16,
    "silu": 15,
    "AveragePooling2D": 7,
    "Concatenate": 7,
    "multiply_constant": 5,
    "gelu": 5,
    "LayerNormalization": 5,
    "ReLU": 4,
    "relu6": 4,
    "Flatten": 4,
    "SeparableConv2D": 3,
    "Cropping2D": 2,
    "hard_silu": 2,
    "hard_sigmoid": 2,
    "add_constant": 2,
}


@cache
def family(operation: str) -> str:
    """Return what an operation counts as in pairs: itself, or its kind where it is a rare one.

    Activations, arithmetic with constants, reductions, merges and functions of single values that
    no model of the registry has are alike to what stands before and after them.
    """
    if operation in REGISTRY:
        return operation
    kinds = {
        "activation": ACTIVATIONS,
        "arithmetic": tuple(f"{name}_constant" for name in ARITHMETIC),
        "reduction": tuple(f"reduce_{name}" for name in REDUCTIONS),
        "merge": ("Subtract", "Maximum", "Minimum", "Average"),
        "function": MATHS,
    }
    return next((kind for kind, members in kinds.items() if operation in members), operation)
