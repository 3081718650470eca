"""A recipe written out as the few lines of Keras code that a person would write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import shapes
from .recipes import HEADS, STEM_FILTERS, Layer, Recipe, input_of, shapes_of
from .shapes import Shape
from .vocabulary import ACTIVATIONS, ARITHMETIC, MATHS, OPERATIONS, REDUCTIONS

_CODE = '''"""{title}.

The model of the file as Keras code; it draws weights of its own. Needs TensorFlow.
"""
import tensorflow as tf

keras, layers = tf.keras, tf.keras.layers
keras.utils.set_random_seed({seed})
image = keras.Input({input})
{layers}
model = keras.Model(image, {last})
print(model.output_shape)
'''


def code_of(recipe: Recipe, title: str) -> str:
    """Return a program that makes the model a recipe means and prints the shape of its output.

    title: what it is, the first line of the program's docstring.
    """
    known = shapes_of(recipe) or []
    chain = all(
        set(layer.inputs) == {number} for number, layer in enumerate(recipe.layers)
    )  # where each layer takes the one before, one name is enough
    names = ["x"] * len(known) if chain else [f"x{number}" for number in range(len(known))]
    lines = [f'{names[0]} = layers.Conv2D({STEM_FILTERS}, 3, padding="same")(image)']
    for number, layer in enumerate(recipe.layers, 1):
        given = [names[source] for source in layer.inputs]
        shape, target = known[layer.inputs[0]], known[number]
        lines += _lines(layer, given, names[number], shape, target)
    lines += _head(recipe, names[-1], known[-1])
    text = _CODE.format(
        title=title,
        seed=recipe.seed,
        input=tuple(input_of(recipe)[1:]),
        layers="\n".join(lines),
        last=names[-1],
    )
    return text.replace("'", '"')


def _head(recipe: Recipe, x: str, shape: Shape) -> Iterator[str]:
    if len(shape) == 3:
        pooled = "GlobalAveragePooling2D" if recipe.head == "gap" else "Flatten"
        yield f"{x} = layers.{pooled}()({x})"
    yield f"{x} = layers.Dense({HEADS[recipe.head]})({x})"
    if recipe.head == "gap":
        yield f"{x} = layers.Softmax()({x})"


def _lines(layer: Layer, given: list[str], name: str, shape: Shape, target: Shape) -> list[str]:
    if layer.operation in _WRITTEN:
        *before, last = _WRITTEN[layer.operation](layer, given[0], shape, target)
        return [*before, f"{name} = {last}"]
    operands = f"[{', '.join(given)}]" if OPERATIONS[layer.operation].merges else given[0]
    return [f"{name} = layers.{layer.words()}({operands})"]


# The lines of an operation that is no layer of Keras, the last one without the name that it gets.
_Writer = Callable[[Layer, str, Shape, Shape], list[str]]


def _template(layer: Layer, x: str, _: Shape, __: Shape) -> list[str]:
    return [_words(layer, x)]


def _words(layer: Layer, x: str) -> str:
    """Write what the vocabulary says, which is code already."""
    given = {name: repr(value) for name, value in layer.attributes.items()}
    return OPERATIONS[layer.operation].function.format(x=x, **given)


def _activation(layer: Layer, x: str, _: Shape, __: Shape) -> list[str]:
    return [f'layers.Activation("{layer.operation}")({x})']


def _lambda(layer: Layer, x: str, _: Shape, __: Shape) -> list[str]:
    """Write a function of TensorFlow, which takes tensors of Keras within a layer only."""
    return [f"layers.Lambda(lambda t: {_words(layer, 't')})({x})"]


def _arithmetic(layer: Layer, x: str, shape: Shape, _: Shape) -> list[str]:
    constant = shapes.constant_shape(shape, layer.attributes["of"])
    operands = [x, f"keras.random.uniform({constant}, 0.5, 1.5)"]
    if layer.attributes["side"] == "left":
        operands.reverse()
    function = layer.operation.rpartition("_")[0]
    return [f"keras.ops.{function}({', '.join(operands)})"]


def _reduction(layer: Layer, x: str, shape: Shape, target: Shape) -> list[str]:
    axes, keep = tuple(layer.attributes["axis"]), layer.attributes["keepdims"]
    function = layer.operation.rpartition("_")[2]
    reduced = f"keras.ops.{function}({x}, axis={axes}, keepdims={keep})"
    flat = not keep and len(shape) - len(axes) != len(target)
    return [f"layers.Reshape({target})({reduced})" if flat else reduced]


def _slice(layer: Layer, x: str, _: Shape, __: Shape) -> list[str]:
    parts = [_part(*part) for part in layer.attributes["slices"]]
    return [f"{x}[{', '.join([':', *parts])}]"]


def _part(start: object, stop: object, step: int) -> str:
    ends = ":".join("" if end is None else str(end) for end in (start, stop))
    return ends if step == 1 else f"{ends}:{step}"


def _pad(layer: Layer, x: str, _: Shape, __: Shape) -> list[str]:
    rows, columns = map(tuple, layer.attributes["padding"])
    width = ((0, 0), rows, columns, (0, 0))
    return [f"keras.ops.pad({x}, {width}, mode={layer.attributes['mode']!r})"]


def _argmax(layer: Layer, x: str, _: Shape, __: Shape) -> list[str]:
    (axis,) = layer.attributes["axis"]
    found = f"tf.expand_dims(tf.argmax(t, {axis}), {axis})"
    return [f"layers.Lambda(lambda t: tf.cast({found}, t.dtype))({x})"]


def _fused_batch_norm(layer: Layer, x: str, shape: Shape, _: Shape) -> list[str]:
    ones, zeros = f"tf.ones({shape[-1]})", f"tf.zeros({shape[-1]})"
    rest = f"epsilon={layer.attributes['epsilon']}, is_training=False"
    call = f"normalize(t, {ones}, {zeros}, {zeros}, {ones}, {rest})[0]"
    return [
        "normalize = tf.compat.v1.nn.fused_batch_norm",
        f"layers.Lambda(lambda t: {call})({x})",
    ]


def _normalization(_: Layer, x: str, shape: Shape, __: Shape) -> list[str]:
    values = [f"tf.linspace({low}, {high}, {shape[-1]})" for low, high in _MOMENTS]
    return [f"layers.Normalization(mean={values[0]}, variance={values[1]})({x})"]


# Of a Normalization layer's channels, the first and the last mean, and variance.
_MOMENTS = ((-0.3, 0.4), (0.5, 2.0))


def _attention(_: Layer, x: str, shape: Shape, __: Shape) -> list[str]:
    height, width, channels = shape
    scores = f"tf.matmul(t[0], t[1], transpose_b=True) / {channels}**0.5"
    return [
        f"pixels = layers.Reshape(({height * width}, {channels}))({x})",
        f'qkv = [layers.Dense({channels}, name=part)(pixels) for part in "qkv"]',
        f"weigh = layers.Lambda(lambda t: tf.matmul(tf.nn.softmax({scores}), t[2]))",
        f"layers.Reshape({shape})(weigh(qkv))",
    ]


def _squeeze_and_excite(layer: Layer, x: str, shape: Shape, _: Shape) -> list[str]:
    channels, gate = shape[-1], layer.attributes["gate"]
    return [
        f"gates = layers.GlobalAveragePooling2D(keepdims=True)({x})",
        f'gates = layers.Conv2D({max(channels // 2, 1)}, 1, activation="relu")(gates)',
        f"gates = layers.Conv2D({channels}, 1, activation={gate!r})(gates)",
        f"layers.Multiply()([{x}, gates])",
    ]


def _reshape(_: Layer, x: str, __: Shape, target: Shape) -> list[str]:
    return [f"layers.Reshape({target})({x})"]


_WRITTEN: dict[str, _Writer] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    **dict.fromkeys((*MATHS, "split"), _template),
    **{f"{name}_constant": _arithmetic for name in ARITHMETIC},
    **{f"reduce_{name}": _reduction for name in REDUCTIONS},
    **dict.fromkeys(("space_to_depth", "depth_to_space", "local_response_normalization"), _lambda),
    "slice": _slice,
    "pad": _pad,
    "argmax": _argmax,
    "FusedBatchNorm": _fused_batch_norm,
    "Normalization": _normalization,
    "Reshape": _reshape,
    "attention": _attention,
    "squeeze_and_excite": _squeeze_and_excite,
}
