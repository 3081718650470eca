"""A generated model as data: its layers, their attributes and wiring, its input, its seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from conformance.errors import ConformanceError

from . import shapes
from .shapes import Shape
from .vocabulary import OPERATIONS

# Raised where a recipe means another model than before.
SCHEMA = 1
# Of Keras' layers, arguments that a reader writes without their names, in this order.
_POSITIONAL = ("filters", "units", "pool_size", "kernel_size", "size", "cropping", "dims")
# Each head, with how many values it gives.
HEADS = {"gap": 5, "flatten": 6}
# Attributes that a reader must see though they are plain: Keras has another default, or none.
_SAID = {
    *(("MaxPooling2D", "strides"), ("AveragePooling2D", "strides"), ("PReLU", "shared_axes")),
    *(("Resizing", "height"), ("Resizing", "width"), ("Rescaling", "scale")),
    ("GroupNormalization", "groups"),
}


@dataclass(frozen=True)
class Layer:
    """One operation: its name, its attributes, and the numbers of the layers that it takes.

    Layer 0 is the input.
    """

    operation: str
    attributes: Mapping[str, Any]
    inputs: tuple[int, ...]

    def words(self) -> str:
        """Return it as Keras' users write it, such as "Conv2D(8, (5, 3), strides=2)"."""
        operation = OPERATIONS[self.operation]
        shown = {k: _short(v) for k, v in self.attributes.items() if k != "kernel"}
        if operation.function:
            return _filled(operation.function, shown)
        default = {name: values[0] for name, values in operation.attributes.items()}
        positional = [repr(shown[name]) for name in _POSITIONAL if name in shown]
        named = [
            f"{name}={value!r}"
            for name, value in shown.items()
            if name not in _POSITIONAL
            and (
                (self.operation, name) in _SAID
                or name not in default
                or value != _short(default[name])
            )
        ]
        return f"{self.operation}({', '.join(positional + named)})"


def _short(value: Any) -> Any:
    """Return one number for a pair of the same, as Keras takes it."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]
    return value[0] if pair and isinstance(value[0], int) else frozen(value)


def frozen(value: Any) -> Any:
    """Return a value with tuples for the lists that JSON made of them."""
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def _filled(template: str, shown: Mapping[str, Any]) -> str:
    operands: tuple[str, ...] = (
        ("constant", "x") if shown.get("side") == "left" else ("x", "constant")
    )
    texts = {name: repr(value) for name, value in shown.items()}
    if "slices" in shown:
        parts = [":".join("" if p is None else str(p) for p in part) for part in shown["slices"]]
        texts["slices"] = ", ".join([":", *parts])
    if "of" in shown:
        operands = tuple(f"{shown['of']} constant" if o == "constant" else o for o in operands)
    epsilon = f", epsilon={shown['epsilon']}" if "epsilon" in shown else ""
    target = f"<{shown['form']}>" if "form" in shown else ""
    given = {"x": "x", "operands": ", ".join(operands), "rest": epsilon, "target": target, **texts}
    if "gate" in shown:
        given["gate"] = shown["gate"]
    return template.format_map(given)


@dataclass(frozen=True)
class Recipe:
    """A whole model.

    input: [H, W, C] of an image. head: "gap" (global average pooling, Dense, softmax) or "flatten"
    (Flatten, Dense), whose outputs are values. Between input and layers stands a stem, a Conv2D
    of 8 filters: OpenCV derives the layout of its data from such operations.
    """

    input: tuple[int, int, int]
    layers: tuple[Layer, ...]
    head: str = "flatten"
    any_size: bool = False  # whether the model is made for images of any size
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "schema": SCHEMA,
            "input": list(self.input),
            "head": self.head,
            "any_size": self.any_size,
            "seed": self.seed,
            "layers": [
                {
                    "operation": layer.operation,
                    "attributes": dict(layer.attributes),
                    "inputs": list(layer.inputs),
                }
                for layer in self.layers
            ],
        }

    def key(self) -> str:
        """Return ten hex digits that are of this recipe alone."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def words(self) -> list[str]:
        """Return its layers in Keras' words, without stem and head."""
        return [layer.words() for layer in self.layers]


def input_of(recipe: Recipe) -> list[Optional[int]]:
    """Return the shape of a recipe's input, NHWC, None for what may be any."""
    height, width, channels = recipe.input
    return [None, *((None, None) if recipe.any_size else (height, width)), channels]


def recipe_from(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe that `as_dict` wrote.

    Raises ConformanceError naming `where` for a newer schema, an unknown operation or attribute, or
    wiring that does not fit.
    """
    schema = values.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ConformanceError(
            f"{where}: recipe of schema {schema!r}, but this version reads up to schema {SCHEMA}: "
            "judge it with the version of opencv-dnn-conformance that wrote it, or a later one"
        )
    try:
        layers = tuple(
            Layer(one["operation"], one["attributes"], tuple(one["inputs"]))
            for one in values["layers"]
        )
        height, width, channels = values["input"]
        recipe = Recipe(
            (height, width, channels), layers, values["head"], values["any_size"], values["seed"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConformanceError(f"{where}: no recipe of a model ({error!r})") from error
    problem = problem_of(recipe)
    if problem:
        raise ConformanceError(f"{where}: {problem}")
    return recipe


def problem_of(recipe: Recipe) -> str:
    """Return why a recipe is none, "" if it is one."""
    for number, layer in enumerate(recipe.layers, 1):
        operation = OPERATIONS.get(layer.operation)
        if operation is None:
            return f"layer {number}: unknown operation {layer.operation!r}"
        known = {*operation.attributes, *operation.fixed}
        if set(layer.attributes) != known:
            return (
                f"layer {number}: {layer.operation} has the attributes {', '.join(sorted(known))}"
            )
        if any(not 0 <= source < number for source in layer.inputs):
            return f"layer {number}: takes a layer that does not come before it"
    if recipe.head not in HEADS:
        return f"head {recipe.head!r}: use one of {', '.join(HEADS)}"
    return "" if shapes_of(recipe) else "its shapes do not fit each other"


STEM_FILTERS = 8


def shapes_of(recipe: Recipe) -> Optional[list[Shape]]:
    """Return the shape that each layer gives, the stem's first, or None where they don't fit."""
    height, width, _ = recipe.input
    found: list[Shape] = [(height, width, STEM_FILTERS)]
    for layer in recipe.layers:
        shape = shape_after(layer, [found[source] for source in layer.inputs])
        if shape is None:
            return None
        found.append(shape)
    return found


def shape_after(layer: Layer, given: Sequence[Shape]) -> Optional[Shape]:
    """Return the shape that a layer gives for those that it is given, None where it can't be."""
    operation = OPERATIONS[layer.operation]
    if any(len(shape) not in operation.takes for shape in given):
        return None
    if not operation.merges:
        return operation.shape(given[0], layer.attributes) if len(given) == 1 else None
    if len(given) != 2:
        return None
    if layer.operation == "Concatenate":
        return shapes.glued(given, layer.attributes["axis"])
    return given[0] if given[0] == given[1] else None
