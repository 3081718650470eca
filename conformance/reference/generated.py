"""Generated models: from a recipe to a Keras model, its files, and what TensorFlow answers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from conformance.errors import ConformanceError, first_line
from conformance.generated import shapes
from conformance.generated.recipes import (
    HEADS,
    STEM_FILTERS,
    Layer,
    Recipe,
    frozen,
    input_of,
    shapes_of,
)
from conformance.generated.vocabulary import ACTIVATIONS, ARITHMETIC, OPERATIONS, REDUCTIONS
from conformance.pack.format import GRAPH
from conformance.pack.formats import FORMATS
from conformance.pack.sealed import raise_shortage
from conformance.runtimes import RUNTIMES

from .formats import convert
from .freeze import trace
from .graph import Graph, write_graph
from .graph.passes import apply_passes
from .oracle import run

Array = NDArray[Any]
keras: Any = tf.keras
layers: Any = keras.layers

IMAGES = 4
# By importer, the file that it reads.
FILE_OF = {"tensorflow": GRAPH, **{name: of.file for name, of in FORMATS.items()}}
# A model is ill-conditioned, and left out, where an input changed by NUDGE (relative) moves a value
# by over MOVED of the greatest: no rounding could be judged by it.
NUDGE, MOVED = 1e-5, 0.01


# How far the values of the last layer spread, and what share of it the images alone must make up:
# where they hardly differ in what reaches it, their difference is not blown up.
SPREAD, LEAST = 1.5, 0.01


class IllConditioned(Exception):
    """A model by which no rounding can be judged. The message says why."""


@dataclass(frozen=True)
class Built:
    """A generated model's answers and operations.

    arrays: "inputs" [N, H, W, C], "f32" and "f64" [N, V], and by importer what the file's own
    runtime answers. operations: by importer, what the file has, each with the number of the layer
    that it comes from (0: stem or head). refused: by importer, the converter's reason.
    """

    arrays: dict[str, Array]
    operations: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def build_generated(
    recipe: Recipe, folder: Path, importers: Sequence[str], rewritten: bool = False
) -> Built:
    """Write the model's files into `folder` and return what TensorFlow and the runtimes answer.

    rewritten: as apply_passes has it; the answers are those of the graph as it was. Raises
    IllConditioned for a model whose float64 answer hangs on its inputs' last digits.
    """
    graph, inputs = graph_of(recipe)
    arrays = {"inputs": inputs, **_answers(graph, inputs)}
    if rewritten:
        graph = apply_passes(graph, rewritten)[0]
    write_graph(folder / FILE_OF["tensorflow"], graph)
    built = Built(arrays, {"tensorflow": graph_operations(graph)})
    for importer in importers:
        _add_file(built, graph, recipe, importer, folder)
    return built


def graph_of(recipe: Recipe) -> tuple[Graph, Array]:
    """Return a recipe's frozen graph and its images [N, H, W, C], the same ones each time."""
    keras.backend.clear_session()
    random = np.random.default_rng(recipe.seed)
    inputs = random.uniform(-1, 1, (IMAGES, *recipe.input)).astype(np.float32)
    model = keras_model(recipe)
    set_weights(model, random)
    settle_head(model, inputs)
    return apply_passes(trace(model, recipe.input[:2]).graph)[0], inputs


def _answers(graph: Graph, inputs: Array) -> dict[str, Array]:
    single = run(graph, inputs).outputs
    sign = np.where(np.random.default_rng(7).random(inputs.shape) < 0.5, -1, 1)
    both = np.concatenate([inputs.astype(np.float64), inputs * (1 + NUDGE * sign)])
    double, nudged = np.split(run(graph, both, "float64").outputs, 2)
    size = np.abs(double).max()
    if not (np.isfinite(single).all() and np.isfinite(double).all()):
        raise IllConditioned("its values are not finite")
    moved = np.abs(nudged - double).max() / size if size else 0.0
    strayed = np.abs(single - double).max() / size if size else 0.0
    if max(moved, strayed) > MOVED:
        raise IllConditioned(
            f"inputs changed by {NUDGE:g} move its values by {moved:.2g}, float32 by {strayed:.2g}"
        )
    return {"f32": single.reshape(IMAGES, -1), "f64": double.reshape(IMAGES, -1)}


def _add_file(built: Built, graph: Graph, recipe: Recipe, importer: str, folder: Path) -> None:
    runtime = RUNTIMES[importer]
    path = folder / FILE_OF[importer]
    try:
        convert(importer, graph, list(recipe.input), path)
        answers = [outputs[0] for outputs, _ in runtime.run(path, built.arrays["inputs"], False)]
    except Exception as error:  # converters and runtimes raise whatever they like
        raise_shortage(error)
        built.refused[importer] = first_line(error, 300)
        path.unlink(missing_ok=True)
        return
    built.arrays[importer] = np.concatenate([np.reshape(a, (1, -1)) for a in answers])
    built.operations[importer] = [
        (kind, layer_number(tensor)) for tensor, _, kind in runtime.operations(path)
    ]


def graph_operations(graph: Graph) -> list[tuple[str, int]]:
    """Return the graph's operations, constants and the input left out, and whose layer each is."""
    return [
        (node.op, layer_number(node.name))
        for node in graph.definition.node
        if node.op not in ("Const", "Placeholder", "Identity", "NoOp")
        and node.name not in graph.constants
    ]


def layer_number(name: str) -> int:
    """Return the number of the layer that a node or tensor comes from, 0 for stem and head."""
    found = re.findall(r"(?:^|/|;)n(\d+)_", name)
    return int(found[-1]) if found else 0


def keras_model(recipe: Recipe) -> Any:
    """Return the model that a recipe means, its weights not yet set."""
    image = keras.Input(input_of(recipe)[1:], name="input")
    found = [layers.Conv2D(STEM_FILTERS, 3, padding="same", name="stem")(image)]
    known = shapes_of(recipe)
    if known is None:
        raise ConformanceError(f"recipe {recipe.key()}: its shapes do not fit each other")
    for number, layer in enumerate(recipe.layers, 1):
        given = [found[source] for source in layer.inputs]
        found.append(apply(layer, given, f"n{number}_{layer.operation.lower()}", known, number))
    return keras.Model(image, _head(recipe, found[-1], known[-1]))


def _head(recipe: Recipe, x: Any, shape: shapes.Shape) -> Any:
    if len(shape) == 3:
        pooled = layers.GlobalAveragePooling2D(name="head_pool")
        x = pooled(x) if recipe.head == "gap" else layers.Flatten(name="head_flatten")(x)
    x = layers.Dense(HEADS[recipe.head], name="head_dense")(x)
    return layers.Activation("softmax", name="head_softmax")(x) if recipe.head == "gap" else x


def apply(
    layer: Layer, given: Sequence[Any], name: str, known: Sequence[shapes.Shape], number: int
) -> Any:
    """Return what a layer of a recipe gives for Keras' tensors."""
    attributes, shape = dict(layer.attributes), known[layer.inputs[0]]
    if layer.operation in FUNCTIONS:
        function = FUNCTIONS[layer.operation]
        return function(given[0], attributes, name, shape, known[number])
    frozen_values = {key: frozen(value) for key, value in attributes.items()}
    kind = getattr(layers, layer.operation)(**frozen_values, name=name)
    return kind(list(given)) if OPERATIONS[layer.operation].merges else kind(given[0])


Function = Callable[[Any, dict[str, Any], str, shapes.Shape, shapes.Shape], Any]


@keras.utils.register_keras_serializable("conformance")
class Apply(layers.Layer):  # type: ignore[misc]
    """A layer that applies a function of one tensor and, if any, constants of its own."""

    def __init__(self, function: Callable[..., Any], constants: Any = (), **given: Any) -> None:
        super().__init__(**given)
        self.function, self.constants = function, list(constants)

    def build(self, _: Any) -> None:
        """Make the weights that stand for the constants."""
        self.values = [self.add_weight(shape=shape, name=role) for role, shape in self.constants]

    def call(self, x: Any) -> Any:
        """Apply the function."""
        return self.function(x, *self.values)


def _pure(function: Callable[[Any, dict[str, Any]], Any]) -> Function:
    """Return the builder of an operation that needs neither names nor shapes nor constants."""

    def build(x: Any, a: dict[str, Any], name: str, _: Any, __: Any) -> Any:
        return Apply(lambda value: function(value, a), name=name)(x)

    return build


def _named(module: Any, name: str) -> Function:
    """Return the builder of a module's function of one tensor."""
    function = getattr(module, name)
    return _pure(lambda x, _: function(x))


def _fused_batch_norm(x: Any, a: dict[str, Any], name: str, shape: Any, _: Any) -> Any:
    def normalized(value: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
        return tf.compat.v1.nn.fused_batch_norm(
            value, scale, offset, mean, variance, epsilon=a["epsilon"], is_training=False
        )[0]

    roles = ("gamma", "beta", "moving_mean", "moving_variance")
    return Apply(normalized, [(role, shape[-1:]) for role in roles], name=name)(x)


def _normalization(x: Any, _: dict[str, Any], name: str, shape: Any, __: Any) -> Any:
    mean = np.linspace(-0.3, 0.4, shape[-1])
    variance = np.linspace(0.5, 2.0, shape[-1])
    return layers.Normalization(mean=mean, variance=variance, name=name)(x)


def _reshape(x: Any, _: dict[str, Any], name: str, __: Any, target: Any) -> Any:
    return layers.Reshape(target, name=name)(x)


def _arithmetic(name: str) -> Function:
    def build(x: Any, a: dict[str, Any], label: str, shape: Any, _: Any) -> Any:
        function = getattr(keras.ops, name)

        def combined(value: Any, constant: Any) -> Any:
            return function(constant, value) if a["side"] == "left" else function(value, constant)

        constant = shapes.constant_shape(shape, a["of"])
        return Apply(combined, [("constant", constant)], name=label)(x)

    return build


def _reduction(name: str) -> Function:
    def build(x: Any, a: dict[str, Any], label: str, _: Any, target: Any) -> Any:
        function, axes = getattr(keras.ops, name), tuple(a["axis"])
        found = Apply(lambda v: function(v, axis=axes, keepdims=a["keepdims"]), name=label)(x)
        flat = len(found.shape) != len(target) + 1
        return layers.Reshape(target, name=f"{label}_flat")(found) if flat else found

    return build


def _slice(x: Any, a: dict[str, Any], name: str, _: Any, __: Any) -> Any:
    parts = tuple(slice(*part) for part in a["slices"])
    return Apply(lambda value: value[(slice(None), *parts)], name=name)(x)


def _attention(x: Any, _: dict[str, Any], name: str, shape: Any, __: Any) -> Any:
    height, width, channels = shape
    pixels = layers.Reshape((height * width, channels), name=f"{name}_pixels")(x)
    query, key, value = (layers.Dense(channels, name=f"{name}_{part}")(pixels) for part in "qkv")

    def attend(operands: Any) -> Any:
        q, k, v = operands
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(channels)
        return tf.matmul(tf.nn.softmax(scores), v)

    attended = Apply(attend, name=f"{name}_softmax")([query, key, value])
    return layers.Reshape((height, width, channels), name=f"{name}_image")(attended)


def _squeeze_and_excite(x: Any, a: dict[str, Any], name: str, shape: Any, _: Any) -> Any:
    channels = shape[-1]
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    squeezed = layers.Conv2D(max(channels // 2, 1), 1, activation="relu", name=f"{name}_in")(pooled)
    gates = layers.Conv2D(channels, 1, activation=a["gate"], name=f"{name}_out")(squeezed)
    return layers.Multiply(name=f"{name}_scale")([x, gates])


FUNCTIONS: dict[str, Function] = {
    **{name: _named(keras.activations, name) for name in ACTIVATIONS},
    **{f"{name}_constant": _arithmetic(name) for name in ARITHMETIC},
    **{f"reduce_{name}": _reduction(name) for name in REDUCTIONS},
    **{
        name: _named(keras.ops, name)
        for name in ("abs", "square", "negative", "sqrt", "rsqrt", "log", "reciprocal")
    },
    "power": _pure(lambda x, a: keras.ops.power(x, a["exponent"])),
    "clip": _pure(lambda x, a: keras.ops.clip(x, a["low"], a["high"])),
    "pad": _pure(
        lambda x, a: keras.ops.pad(x, ((0, 0), *map(tuple, a["padding"]), (0, 0)), mode=a["mode"])
    ),
    "split": _pure(lambda x, a: keras.ops.split(x, a["parts"], axis=a["axis"])[a["part"]]),
    "space_to_depth": _pure(lambda x, a: tf.nn.space_to_depth(x, a["block_size"])),
    "depth_to_space": _pure(lambda x, a: tf.nn.depth_to_space(x, a["block_size"])),
    "local_response_normalization": _pure(
        lambda x, a: tf.nn.local_response_normalization(
            x, a["depth_radius"], 1.0, a["alpha"], a["beta"]
        )
    ),
    "argmax": _pure(
        lambda x, a: tf.cast(tf.expand_dims(tf.argmax(x, a["axis"][0]), a["axis"][0]), x.dtype)
    ),
    "slice": _slice,
    "FusedBatchNorm": _fused_batch_norm,
    "Normalization": _normalization,
    "Reshape": _reshape,
    "attention": _attention,
    "squeeze_and_excite": _squeeze_and_excite,
}


def set_weights(model: Any, random: np.random.Generator) -> None:
    """Give each weight values like a trained network's, from one seeded stream."""
    for weight in model.weights:
        shape, role = tuple(weight.shape), weight.name
        if role in ("gamma", "scale"):
            value = random.uniform(0.7, 1.3, shape)
        elif role == "moving_variance":
            value = random.uniform(0.5, 1.5, shape)
        elif role == "constant":
            value = random.uniform(0.5, 1.5, shape) * np.where(random.random(shape) < 0.4, -1, 1)
        elif role == "alpha":
            value = random.uniform(0.05, 0.4, shape)
        elif "kernel" in role:
            value = random.standard_normal(shape) / math.sqrt(max(_fan_in(role, shape), 1))
        elif weight.dtype == "float32" and role not in ("mean", "variance", "count"):
            value = random.standard_normal(shape) * 0.2
        else:
            continue  # of a Normalization layer, or a counter: no weights to draw
        weight.assign(np.asarray(value, np.float32))


def _fan_in(role: str, shape: Sequence[int]) -> int:
    depthwise = "depthwise" in role
    return math.prod(shape[:2]) if depthwise else math.prod(shape[:-1])


def settle_head(model: Any, inputs: Array) -> None:
    """Scale and shift the last layer so that its values are about one and a half from 0.

    And so that they move with the images as far as the model lets them: a softmax of which one
    class has all would hide what goes wrong before it.
    """
    dense = model.get_layer("head_dense")
    features = np.asarray(
        keras.Model(model.input, dense.input)(inputs, training=False), dtype=np.float64
    )
    kernel, bias = np.asarray(dense.kernel), np.asarray(dense.bias)
    values = features @ kernel.astype(np.float64)
    centre = values.mean(axis=0)
    spread = max(float(np.std(values - centre)), LEAST * float(np.std(values)))
    if math.isfinite(spread) and spread > 0:
        scale = SPREAD / spread
        dense.kernel.assign(kernel * np.float32(scale))
        dense.bias.assign((bias - scale * centre).astype(np.float32))
