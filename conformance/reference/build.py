"""One reference pack: weights, freezing, TensorFlow's answers, and all of it to disk."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from conformance.errors import ConformanceError
from conformance.inputs.images import own_inputs, pack_inputs
from conformance.models import get_model
from conformance.pack.format import (
    GRAPH,
    LAYERS,
    PREPROCESSING,
    Manifest,
    Pack,
    array_file,
    new_manifest,
)
from conformance.pack.labels import write_labels
from conformance.pack.request import PackRequest, producer_versions
from conformance.pack.sampling import SAMPLED
from conformance.pack.store import write_pack

from . import keras_flavour
from .freeze import Traced, freeze_raw, trace
from .graph import Graph, Head, read_graph, source, with_input_shape, write_graph
from .graph.passes import apply_passes
from .graph.rewrites import fitting
from .loader import keras_preprocess
from .oracle import Layer, chunk_size, list_layers, run
from .own import Subject, explained, load_own
from .weights import build_model

Array = NDArray[Any]
Progress = Callable[[str], None]


# Two roundings of one softmax stray up to 2e-3 (resnet152), another network's by 0.1 and more.
TRACE_TOLERANCE = 0.01
# Called eagerly, Keras holds every layer's output until it returns: 1 GiB an image of nasnetlarge.
EAGER_INPUTS = 1

_WEIGHT_STEPS = {"synthetic": "calibrating weights", "imagenet": "fetching ImageNet weights"}


def build_pack(request: PackRequest, root: Path, progress: Progress = lambda step: None) -> Pack:
    """Build the pack of `request` under the folder `root` and return it, replacing one there.

    progress: called with the name of each step as it starts. Raises ConformanceError when the
    weights can't be had, the other Keras is running, or the disk is full; nothing half-done
    stays behind. Takes the model's lock for the whole build.
    """
    _check_flavour(request)
    manifest = _new_manifest(request)
    return write_pack(root, manifest, lambda folder: _fill(folder, request, manifest, progress))


def _check_flavour(request: PackRequest) -> None:
    running = keras_flavour()
    if request.keras != running:
        raise ConformanceError(
            f"pack of {request.model} is asked for with keras={request.keras!r}, but "
            f"{running!r} is running: set TF_USE_LEGACY_KERAS="
            f"{'1' if request.keras == 'legacy' else '0'} before the start"
        )


def _new_manifest(request: PackRequest) -> Manifest:
    producer = producer_versions(request.keras)
    if producer is None:
        raise ConformanceError("building a pack needs pip's metadata of TensorFlow: install it")
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
    return new_manifest(request, producer, threads=threads)


@dataclass(frozen=True)
class _Job:
    """What every step needs. inputs: float32 NHWC. manifest is completed on the way."""

    folder: Path
    request: PackRequest
    manifest: Manifest
    inputs: Array
    progress: Progress

    def save_heads(self, name: str, heads: Sequence[Head], results: dict[str, Array]) -> None:
        """Write what was answered at each head's node of `name` ("outputs" or "logits"), [N,C]."""
        kind, _, _ = name.partition("_")
        for number, head in enumerate(heads):
            values = results[head.logits if kind == "logits" else head.output]
            np.save(self.folder / array_file(name, number), values.reshape(len(values), -1))


def _fill(folder: Path, request: PackRequest, manifest: Manifest, progress: Progress) -> None:
    if request.own is None:
        spec = get_model(request.model)
        manifest.inputs, inputs = pack_inputs(spec)
        stated = _keras_statement(lambda image: keras_preprocess(spec, image))
        np.savez(folder / PREPROCESSING, **stated)
        subject = _registry_subject(request, progress)
    else:
        progress("loading the model")
        subject = load_own(request.own)
        inputs = _describe_own(folder, manifest, request, subject)
    job = _Job(folder, request, manifest, inputs, progress)
    np.save(folder / "inputs.npy", job.inputs)
    double, heads = _write_model(job, subject)
    # The model goes now: its weights and the frozen graph's need not fit at once.
    del subject
    gc.collect()
    graph = read_graph(folder / GRAPH, manifest.tensors, heads)
    if manifest.own is not None:
        # A raw graph that takes any size tells no shapes of its layers.
        shape = [manifest.own["batch"], *manifest.own["input_shape"]]
        graph = replace(graph, definition=with_input_shape(graph.definition, graph.input, shape))
    _write_layers(job, graph, double)


def _registry_subject(request: PackRequest, progress: Progress) -> Subject:
    progress(_WEIGHT_STEPS.get(request.weights, "loading weights"))
    model = build_model(get_model(request.model), request.weights)
    progress("freezing")
    return Subject(
        trace(model),
        lambda images: model(images, training=False),
        lambda path: freeze_raw(model, path),
    )


def _keras_statement(preprocess_input: Callable[[Any], Any]) -> dict[str, Any]:
    image = np.random.default_rng(4).integers(0, 256, (2, 37, 53, 3), np.uint8)
    return {"image": image, "keras": np.asarray(preprocess_input(image.astype(np.float32)))}


def _describe_own(
    folder: Path, manifest: Manifest, request: PackRequest, subject: Subject
) -> Array:
    """Complete the manifest of an own model, write labels and preprocessing; return the inputs."""
    own = request.own
    assert own is not None
    shape = subject.input_shape
    manifest.inputs, inputs = own_inputs(own.preprocess, (shape[0], shape[1]), shape[2])
    manifest.own = {
        "file": Path(own.path or "").name,
        "preprocess": own.preprocess.as_dict(),
        "input_shape": list(shape),
        "batch": subject.batch,
    }
    manifest.notes = list(subject.notes)
    mode = own.preprocess.mode
    if mode in ("tf", "caffe", "torch"):
        keras = tf.keras.applications.imagenet_utils.preprocess_input
        stated = _keras_statement(lambda image: keras(image, mode=mode))
    else:
        stated = {}  # Keras has no such function: there is nothing to compare with
    np.savez(folder / PREPROCESSING, **stated)
    if own.labels is not None:
        write_labels(folder, Path(own.labels), request.model, subject.traced.graph.heads)
    return inputs


def _write_model(job: _Job, subject: Subject) -> tuple[dict[str, Array], tuple[Head, ...]]:
    """Write the frozen graph, and the model's own outputs and logits in both precisions.

    Return the float64 activations of the frozen graph's layers, taken from the graph before our
    passes, which keep names and shapes: so a wrong pass can't hide at a layer either. And the heads
    of the frozen graph, whose nodes have other names than the traced one's where it is raw.
    """
    traced = subject.traced
    heads = traced.graph.heads
    graph = _write_graph(job, subject)
    job.progress("float32 answers")
    single = _keras_answers(traced, job.inputs)
    job.save_heads("outputs_f32", heads, single)
    job.save_heads("logits_f32", heads, single)
    job.progress("float64 answers")
    # The nodes of a raw graph have names of their own, and a rewrite brings some: those are run in
    # _write_layers.
    known = set() if job.request.graph == "raw" else set(traced.graph.nodes())
    layers = [layer for layer in _layers(graph, job.inputs) if layer.node in known]
    with explained(job.request.model, "in float64"):
        truth = run(traced.graph, job.inputs, "float64", layers, SAMPLED)
    job.save_heads("outputs_f64", heads, truth.results)
    job.save_heads("logits_f64", heads, truth.results)
    first = heads[0].output
    eager = single[first][:EAGER_INPUTS]
    if subject.eager is not None:
        eager = np.asarray(tf.nest.flatten(subject.eager(job.inputs[:EAGER_INPUTS]))[0])
    check_outputs(job.request, single[first], eager, truth.results[first])
    return truth.samples, graph.heads


def _layers(graph: Graph, inputs: Array) -> list[Layer]:
    return list_layers(graph, len(inputs[SAMPLED]))


def _write_graph(job: _Job, subject: Subject) -> Graph:
    path = job.folder / GRAPH
    if job.request.graph == "raw":
        graph = subject.raw(path)
    else:
        graph, passes = apply_passes(subject.traced.graph, job.request.graph == "rewritten")
        write_graph(path, graph)
        job.manifest.passes = [asdict(applied) for applied in passes]
        job.manifest.rewrites = fitting(graph)
    job.manifest.tensors = {"input": graph.input, "logits": graph.logits, "output": graph.output}
    if job.request.own is not None:
        job.manifest.heads = [asdict(head) for head in graph.heads]
    return graph


def _keras_answers(traced: Traced, inputs: Array) -> dict[str, Array]:
    """Return {node: float32 [N, …]} of the Keras model itself as a tf.function."""
    chunk = chunk_size(traced.graph, inputs.itemsize)
    parts = [
        traced.function(tf.constant(inputs[start : start + chunk]))
        for start in range(0, len(inputs), chunk)
    ]
    columns = (np.concatenate([np.asarray(p) for p in column]) for column in zip(*parts))
    return dict(zip(traced.graph.results(), columns))


def check_outputs(request: PackRequest, outputs: Array, eager: Array, truth: Array) -> None:
    """Raise ConformanceError unless three ways to run the model agree within TRACE_TOLERANCE.

    The tolerance is of probabilities; of other values, of the greatest. What counts is the median
    input: a trace that is wrong is so on all of them, but on noise the activations of the deepest
    EfficientNets grow until float32 has no digit right. outputs: [N,C] of the model as a
    tf.function. eager: [M,C] of the model called layer by layer on the first M inputs. truth:
    [N,C] of the traced graph in float64.
    """
    if not np.isfinite(outputs).all():
        raise ConformanceError(
            f"{request.model} with weights {request.weights} gives outputs that are not finite: "
            "use other weights"
        )
    for way, first, second in (
        ("as a tf.function", outputs[: len(eager)], eager),
        ("in float64", truth, outputs),
    ):
        strayed = np.abs(first - second)
        deviation = float(np.median(strayed.reshape(len(strayed), -1).max(axis=1)))
        allowed = TRACE_TOLERANCE * max(1.0, float(np.abs(truth).max()))
        if not deviation <= allowed:
            raise ConformanceError(
                f"{request.model}: the model traced and run {way} strays from the Keras model by "
                f"{deviation:.2g}, expected at most {allowed:.2g}: tracing has changed it; "
                "please report this with the versions of TensorFlow and Keras"
            )


def _winograd_convolutions(graph: Graph) -> int:
    """Return how many convolutions OpenCV may run as Winograd's F(6x6, 3x3).

    Kernel 3x3, stride 1: initFastConv in modules/dnn/src/layers/cpu_kernels/convolution.cpp.
    """
    nodes = graph.nodes()
    single = (
        node
        for node in graph.definition.node
        if node.op == "Conv2D" and all(step == 1 for step in node.attr["strides"].list.i)
    )
    return sum(_kernel_shape(graph, nodes, node)[:2] == (3, 3) for node in single)


def _kernel_shape(graph: Graph, nodes: dict[str, Any], node: Any) -> tuple[int, ...]:
    name = source(node.input[1])
    while nodes[name].op == "Identity":  # the raw recipe keeps the read of a variable
        name = source(nodes[name].input[0])
    return tuple(graph.value_of(name).shape)


def _write_layers(job: _Job, graph: Graph, double: dict[str, Array]) -> None:
    """Write TensorFlow's answer to the frozen graph, and every layer's samples in float32/64."""
    layers = _layers(graph, job.inputs)
    job.progress("layers in float32")
    with explained(job.request.model, "as the frozen graph"):
        single = run(graph, job.inputs, "float32", layers, SAMPLED)
    job.save_heads("frozen_f32", graph.heads, single.results)
    if any(layer.node not in double for layer in layers):
        # Or a pass lets TensorFlow tell the shape of a node (ConvNeXt).
        job.progress("layers in float64")
        double = {**run(graph, job.inputs[SAMPLED], "float64", layers).samples, **double}
    arrays: dict[str, Any] = {}
    for index, layer in enumerate(layers):
        arrays[f"{index}_f32"] = single.samples[layer.node]
        arrays[f"{index}_f64"] = double[layer.node]
    np.savez(job.folder / LAYERS, **arrays)
    job.manifest.winograd = _winograd_convolutions(graph)
    job.manifest.layers = [asdict(layer) for layer in layers]
