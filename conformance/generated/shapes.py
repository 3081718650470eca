"""The shape that each operation gives, so that recipes can be drawn without TensorFlow.

Shapes are of one image, [H, W, C], or of one vector, [C]. A function returns None where the
attributes don't fit the shape. Keras has the last word: a self-test holds these against it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]
ShapeOf = Callable[[Shape, Attributes], Optional[Shape]]


def pair(value: Any) -> tuple[int, int]:
    """Return height's and width's of a value that may be one number for both."""
    first, second = value if isinstance(value, (list, tuple)) else (value, value)
    return int(first), int(second)


def _window(side: int, size: int, stride: int, padding: str, dilation: int = 1) -> int:
    """Return how many places a window takes along a side; at most 0 where it doesn't fit."""
    if padding == "same":
        return math.ceil(side / stride)
    return math.ceil((side - dilation * (size - 1)) / stride)


def _windows(shape: Shape, attributes: Attributes, size: str, stride: Any) -> Optional[Shape]:
    sides = [
        _window(side, of, step, attributes.get("padding", "valid"), apart)
        for side, of, step, apart in zip(
            shape, pair(attributes[size]), pair(stride), pair(attributes.get("dilation_rate", 1))
        )
    ]
    return (sides[0], sides[1]) if min(sides) > 0 else None


def same(shape: Shape, _: Attributes) -> Optional[Shape]:
    """Return the shape as it is."""
    return shape


def convolution(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Conv2D and SeparableConv2D."""
    strides, dilation = pair(attributes.get("strides", 1)), pair(attributes.get("dilation_rate", 1))
    groups, filters = attributes.get("groups", 1), attributes["filters"]
    both = max(strides) > 1 and max(dilation) > 1  # which TensorFlow refuses
    if both or shape[2] % groups or filters % groups:
        return None
    sides = _windows(shape, attributes, "kernel_size", strides)
    return sides and (*sides, filters)


def depthwise(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """DepthwiseConv2D."""
    channels = shape[2] * attributes.get("depth_multiplier", 1)
    return convolution(shape, {**attributes, "filters": channels})


def transposed(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Conv2DTranspose."""
    sides = [
        side * step + (max(size - step, 0) if attributes.get("padding", "valid") == "valid" else 0)
        for side, size, step in zip(
            shape, pair(attributes["kernel_size"]), pair(attributes.get("strides", 1))
        )
    ]
    return (*sides, attributes["filters"]) if max(sides) <= 40 else None


def pooled(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """MaxPooling2D and AveragePooling2D."""
    sides = _windows(shape, attributes, "pool_size", attributes["strides"])
    return sides and (*sides, shape[2])


def dense(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Dense, on a vector or on each pixel."""
    return (*shape[:-1], attributes["units"])


def globally(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """The global poolings."""
    return (1, 1, shape[2]) if attributes.get("keepdims") else (shape[2],)


def _grown(shape: Shape, amounts: Any, sign: int) -> Optional[Shape]:
    rows, columns = (sum(pair(side)) for side in amounts)
    height, width = shape[0] + sign * rows, shape[1] + sign * columns
    return (height, width, shape[2]) if min(height, width) > 0 else None


def padded(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """ZeroPadding2D and pad: ((top, bottom), (left, right))."""
    amounts = attributes["padding"]
    if attributes.get("mode") == "reflect" and max(map(max, amounts)) >= min(shape[:2]):
        return None
    return _grown(shape, amounts, 1)


def cropped(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Cropping2D: ((top, bottom), (left, right))."""
    return _grown(shape, attributes["cropping"], -1)


def upsampled(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """UpSampling2D."""
    rows, columns = pair(attributes["size"])
    sides = (shape[0] * rows, shape[1] * columns)
    return (*sides, shape[2]) if max(sides) <= 40 else None


def resized(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Resizing."""
    return (attributes["height"], attributes["width"], shape[2])


def flat(shape: Shape, _: Attributes) -> Optional[Shape]:
    """Flatten."""
    return (math.prod(shape),)


def reshaped(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Reshape to a form: rows of pixels, columns of rows, channels in two, or back to an image."""
    height, width, channels = shape
    forms: dict[str, Optional[Shape]] = {
        "flat": (math.prod(shape),),
        "wide": (height, 1, width * channels),
        "tall": (height * width, 1, channels),
        "swapped": (width, height, channels),
        "halved": (height, width * 2, channels // 2) if channels % 2 == 0 else None,
    }
    return forms[attributes["form"]]


def permuted(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Permute: dims count from 1."""
    return tuple(shape[axis - 1] for axis in attributes["dims"])


def reduced(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """A reduction over axes that count from 1, the batch being 0."""
    axes = attributes["axis"]
    if attributes["keepdims"]:
        return tuple(1 if axis in axes else side for axis, side in enumerate(shape, 1))
    left = tuple(side for axis, side in enumerate(shape, 1) if axis not in axes)
    # What is left of two axes is neither an image nor a vector: it is flattened behind it.
    return (math.prod(left),)


def sliced(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """A slice [start:stop:step] of each axis."""
    parts = zip(attributes["slices"], shape)
    sides = [len(range(*slice(*part).indices(side))) for part, side in parts]
    return tuple(sides) if min(sides) > 0 else None


def split(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """One part of a split into equal ones."""
    axis, parts = attributes["axis"] - 1, attributes["parts"]
    if shape[axis] % parts:
        return None
    return tuple(side // parts if at == axis else side for at, side in enumerate(shape))


def to_depth(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Space to depth."""
    size = attributes["block_size"]
    if shape[0] % size or shape[1] % size:
        return None
    return (shape[0] // size, shape[1] // size, shape[2] * size**2)


def to_space(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Depth to space."""
    size = attributes["block_size"]
    sides = (shape[0] * size, shape[1] * size)
    return None if shape[2] % size**2 or max(sides) > 40 else (*sides, shape[2] // size**2)


def broadcast(shape: Shape, attributes: Attributes) -> Optional[Shape]:
    """Arithmetic with a constant, which is never larger than the value."""
    return shape if constant_shape(shape, attributes["of"]) is not None else None


def constant_shape(shape: Shape, of: str) -> Optional[Shape]:
    """Return the shape of a constant that is broadcast over values of `shape`; None: does not fit.

    of: "scalar", "channels" ([C]), "pixels" ([H, W, 1]), "rows" ([H, 1, 1]), "columns" ([1, W, 1])
    or "all".
    """
    if len(shape) == 1:
        return {"scalar": (), "channels": shape, "all": (1, *shape)}.get(of)
    height, width, _ = shape
    forms = {
        "scalar": (),
        "channels": shape[2:],
        "pixels": (height, width, 1),
        "rows": (height, 1, 1),
        "columns": (1, width, 1),
        "all": (1, *shape),
    }
    return forms[of]


def glued(shapes: Sequence[Shape], axis: int) -> Optional[Shape]:
    """Return the shape of values concatenated along an axis that counts from 1 (-1: the last)."""
    at = len(shapes[0]) - 1 if axis == -1 else axis - 1
    rest = {(*shape[:at], *shape[at + 1 :]) for shape in shapes}
    if len(rest) != 1 or at >= len(shapes[0]):
        return None
    whole = list(shapes[0])
    whole[at] = sum(shape[at] for shape in shapes)
    return tuple(whole)
