"""A user's own model, from its file to what a pack is built of. Nothing in it is unpickled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from conformance.errors import ConformanceError, first_line, naming
from conformance.own_models import OwnModel, Shape, check_format, image_shape
from conformance.pack.heads import head_note
from conformance.reference.freeze import Traced, freeze_raw, trace
from conformance.reference.graph import (
    Array,
    Graph,
    GraphDef,
    Head,
    results_of,
    sorted_nodes,
    with_input_shape,
    without_large_constants,
)
from conformance.reference.graph.heads import find_heads
from conformance.reference.oracle import REFUSED

from .graphs import checked_input, find_outputs, import_graph, read_definition
from .keras import load_keras


@dataclass(frozen=True)
class Subject:
    """What a pack is made of.

    eager: the model itself, called as its author does, None where there is only a graph: float32
    [N,H,W,C] → its outputs. raw: writes the graph without any pass to a path and returns it.
    input_shape: height, width, channels of one image. batch: the only number of images it takes,
    None for any. notes: what is judged otherwise than usual, and why.
    """

    traced: Traced
    eager: Optional[Callable[[Any], Any]]
    raw: Callable[[Path], Graph]
    input_shape: Shape = (0, 0, 0)
    batch: Optional[int] = None
    notes: Sequence[str] = ()


@contextmanager
def explained(model: str, doing: str) -> Iterator[None]:
    """Turn what TensorFlow raises for a graph that it can't run into one clear error."""
    with naming(model):
        try:
            yield
        except REFUSED as error:
            raise ConformanceError(
                f"{model}: TensorFlow can't run it {doing}, so that there is no truth to judge it "
                f"by: {first_line(error)}"
            ) from error


def load_own(own: OwnModel) -> Subject:
    """Return the model ready to be frozen and asked.

    Raises ConformanceError, naming the file and what is wrong with it: damaged, code inside,
    several inputs, variables, loops, an output or input of a kind that can't be judged.
    """
    if own.path is None:
        raise ConformanceError(
            f"{own.name}: only its pack is known; give the model's path to build one"
        )
    path = Path(own.path)
    check_format(path)
    with naming(str(path), "model "):
        if path.is_dir():
            return _from_saved_model(own, path)
        return _from_graph(own, path) if path.suffix == ".pb" else _from_keras(own, path)


def _from_keras(own: OwnModel, path: Path) -> Subject:
    model = load_keras(path)
    shape, notes = image_shape(own, [*model.inputs[0].shape[1:]])
    size = (shape[0], shape[1])
    with explained(own.name, f"on images of {size[0]} x {size[1]}"):
        traced = trace(model, size)
    return Subject(
        traced,
        lambda images: model(images, training=False),
        lambda target: freeze_raw(model, target, size),
        shape,
        None,
        [*notes, *map(head_note, traced.graph.heads)],
    )


def _from_saved_model(own: OwnModel, path: Path) -> Subject:
    loaded = _load(path)  # kept: a signature holds its variables by weak references
    signature = _signature(loaded.signatures)
    given = signature.structured_input_signature[1]
    if len(given) != 1:
        raise ConformanceError(f"takes {len(given)} inputs ({', '.join(given)}): expected one")
    ((name, spec),) = given.items()
    if spec.dtype != tf.float32 or spec.shape.rank != 4:
        raise ConformanceError(
            f"input {name!r} is {spec.dtype.name} {spec.shape}: expected float32 images, NHWC"
        )
    shape, notes = image_shape(own, spec.shape.as_list()[1:])
    images = tf.TensorSpec([spec.shape[0], *shape], tf.float32, name="input")

    def call(image: Any) -> Any:
        assert loaded is not None
        return signature(**{name: image})

    with explained(own.name, "as a graph"):
        frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(images))
    definition = frozen.graph.as_graph_def()
    outputs = dict(zip(sorted(signature.structured_outputs), (t.op.name for t in frozen.outputs)))
    return _of_definition(own, definition, outputs, notes, call, shape)


def _load(path: Path) -> Any:
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:  # of TensorFlow's many kinds
        raise ConformanceError(
            f"TensorFlow can't load this SavedModel: {first_line(error)}"
        ) from error


def _signature(signatures: Any) -> Any:
    if "serving_default" in signatures:
        return signatures["serving_default"]
    if len(signatures) != 1:
        names = ", ".join(signatures) or "none"
        raise ConformanceError(f"expected a signature 'serving_default'; it has {names}")
    return next(iter(signatures.values()))


def _from_graph(own: OwnModel, path: Path) -> Subject:
    definition = read_definition(path)
    outputs, notes = find_outputs(definition, own.outputs)
    subject = _of_definition(own, definition, outputs, notes)

    def copy(target: Path) -> Graph:
        shutil.copyfile(path, target)
        return subject.traced.graph

    return Subject(subject.traced, None, copy, subject.input_shape, subject.batch, subject.notes)


def _of_definition(
    own: OwnModel,
    definition: Any,
    outputs: dict[str, str],
    notes: Sequence[str],
    eager: Optional[Callable[[Any], Any]] = None,
    shape: Optional[Shape] = None,
) -> Subject:
    """Return the subject of a frozen graph. outputs: {name: node}."""
    image, dimensions = checked_input(definition, outputs.values())
    more: list[str] = []
    if shape is None:
        shape, more = image_shape(own, dimensions[1:])
    batch = dimensions[0] if dimensions[0] and dimensions[0] > 0 else None
    if batch not in (None, 1):
        raise ConformanceError(
            f"input {image!r} takes exactly {batch} images at once: freeze it for any number (None)"
        )
    definition = with_input_shape(definition, image, [batch, *shape])
    imported = import_graph(definition)
    heads = find_heads(
        list(outputs), [imported.get_tensor_by_name(f"{n}:0") for n in outputs.values()]
    )
    graph = _graph(definition, image, heads)
    if batch:
        more = [*more, "the graph takes one image at a time: no batch is judged"]

    def raw(target: Path) -> Graph:
        target.write_bytes(definition.SerializeToString())
        return graph

    all_notes = [*notes, *more, *map(head_note, heads)]
    return Subject(Traced(graph, _function(definition, graph)), eager, raw, shape, batch, all_notes)


def _graph(definition: Any, image: str, heads: tuple[Head, ...]) -> Graph:
    constants: dict[str, Array] = {}
    nodes = sorted_nodes(without_large_constants(definition, constants))
    light = GraphDef(node=nodes, versions=definition.versions)
    return Graph(light, constants, image, heads[0].logits, heads[0].output, heads)


def _function(definition: Any, graph: Graph) -> Callable[[Any], Sequence[Any]]:
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    pruned = whole.prune(f"{graph.input}:0", [f"{node}:0" for node in results_of(graph.heads)])
    return lambda images: list(pruned(images))
