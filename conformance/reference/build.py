"""One reference pack: weights, freezing, TensorFlow's answers, and all of it to disk."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from conformance.errors import ConformanceError
from conformance.machine import cpu_name
from conformance.models import ModelSpec, get_model
from conformance.pack import (
    GRAPH,
    LAYERS,
    PREPROCESSING,
    SAMPLED,
    Manifest,
    Pack,
    PackRequest,
    describe_request,
    pack_key,
    producer_versions,
    write_pack,
)

from . import keras_flavour
from .freeze import Traced, freeze, freeze_raw, trace, write_frozen
from .graphdef import Graph, constant_value, read_frozen, source
from .images import pack_inputs
from .loading import keras_preprocess
from .oracle import Answers, Layer, chunk_size, list_layers, run
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
    return Manifest(
        model=request.model,
        key=pack_key(request, producer),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        request=describe_request(request),
        producer=producer,
        tensors={},
        inputs=[],
        environment=_environment(),
    )


def _environment() -> dict[str, Any]:
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
    return {"python": platform.python_version(), "cpu": cpu_name(), "threads": threads}


@dataclass(frozen=True)
class _Job:
    """What every step needs. inputs: float32 NHWC. manifest is completed on the way."""

    folder: Path
    request: PackRequest
    manifest: Manifest
    inputs: Array
    progress: Progress

    def save(self, name: str, values: Array) -> None:
        np.save(self.folder / f"{name}.npy", values)


def _fill(folder: Path, request: PackRequest, manifest: Manifest, progress: Progress) -> None:
    spec = get_model(request.model)
    manifest.inputs, inputs = pack_inputs(spec)
    job = _Job(folder, request, manifest, inputs, progress)
    job.save("inputs", inputs)
    np.savez(folder / PREPROCESSING, **_preprocessing(spec))
    double = _write_model(job)
    # The model is gone by now: its weights and the frozen graph's need not fit at once.
    _write_layers(job, read_frozen(folder / GRAPH, **manifest.tensors), double)


def _preprocessing(spec: ModelSpec) -> dict[str, Any]:
    image = np.random.default_rng(4).integers(0, 256, (2, 37, 53, 3), np.uint8)
    return {"image": image, "keras": keras_preprocess(spec, image)}


def _write_model(job: _Job) -> dict[str, Array]:
    """Write the frozen graph, and the model's own outputs and logits in both precisions.

    Return the float64 activations of the frozen graph's layers, taken from the graph before our
    passes, which keep names and shapes: so a wrong pass can't hide at a layer either.
    """
    job.progress(_WEIGHT_STEPS.get(job.request.weights, "loading weights"))
    model = build_model(get_model(job.request.model), job.request.weights)
    job.progress("freezing")
    traced = trace(model)
    graph = _write_graph(job, model, traced)
    job.progress("float32 answers")
    outputs, logits = _keras_answers(traced, job.inputs)
    job.save("outputs_f32", outputs)
    job.save("logits_f32", logits)
    job.progress("float64 answers")
    # The nodes of a raw graph have names of their own; its layers are run in _write_layers.
    layers = [] if job.request.graph == "raw" else _layers(graph, job.inputs)
    truth = _answers(traced.graph, job.inputs, "float64", layers)
    job.save("outputs_f64", truth.outputs)
    job.save("logits_f64", truth.logits)
    eager = np.asarray(model(job.inputs[:EAGER_INPUTS], training=False))
    check_outputs(job.request, outputs, eager, truth.outputs)
    return truth.samples


def _layers(graph: Graph, inputs: Array) -> list[Layer]:
    return list_layers(graph, len(inputs[SAMPLED]))


def _answers(graph: Graph, inputs: Array, dtype: str, layers: Sequence[Layer]) -> Answers:
    """Return the answers to all inputs, and the layers' samples of the inputs SAMPLED."""
    sampled = run(graph, inputs[SAMPLED], dtype, layers)
    left = np.delete(np.arange(len(inputs)), SAMPLED)
    rest = run(graph, inputs[left], dtype)
    joined = []
    for some, others in ((sampled.outputs, rest.outputs), (sampled.logits, rest.logits)):
        whole = np.empty((len(inputs), *some.shape[1:]), some.dtype)
        whole[SAMPLED], whole[left] = some, others
        joined.append(whole)
    return Answers(joined[0], joined[1], sampled.samples)


def _write_graph(job: _Job, model: Any, traced: Traced) -> Graph:
    path = job.folder / GRAPH
    if job.request.graph == "raw":
        graph = freeze_raw(model, path)
    else:
        frozen = freeze(traced)
        write_frozen(path, frozen)
        graph = frozen.graph
        job.manifest.passes = [asdict(applied) for applied in frozen.passes]
    job.manifest.tensors = {"input": graph.input, "logits": graph.logits, "output": graph.output}
    return graph


def _keras_answers(traced: Traced, inputs: Array) -> tuple[Array, Array]:
    """Return outputs and logits, float32 [N,C], of the Keras model itself as a tf.function."""
    chunk = chunk_size(traced.graph, inputs.itemsize)
    parts = [
        traced.function(tf.constant(inputs[start : start + chunk]))
        for start in range(0, len(inputs), chunk)
    ]
    outputs, logits = (np.concatenate([np.asarray(p) for p in column]) for column in zip(*parts))
    return outputs, logits


def check_outputs(request: PackRequest, outputs: Array, eager: Array, truth: Array) -> None:
    """Raise ConformanceError unless three ways to run the model agree within TRACE_TOLERANCE.

    outputs: [N,C] of the model as a tf.function. eager: [M,C] of the model called layer by layer
    on the first M inputs. truth: [N,C] of the traced graph in float64.
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
        deviation = float(np.abs(first - second).max())
        if not deviation <= TRACE_TOLERANCE:
            raise ConformanceError(
                f"{request.model}: the model traced and run {way} strays from the Keras model by "
                f"{deviation:.2g}, expected at most {TRACE_TOLERANCE}: tracing has changed it; "
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
    value = graph.constants[name] if name in graph.constants else constant_value(nodes[name])
    return tuple(value.shape)


def _write_layers(job: _Job, graph: Graph, double: dict[str, Array]) -> None:
    """Write TensorFlow's answer to the frozen graph, and every layer's samples in float32/64."""
    layers = _layers(graph, job.inputs)
    job.progress("layers in float32")
    single = _answers(graph, job.inputs, "float32", layers)
    job.save("frozen_f32", single.outputs)
    if not double:
        job.progress("layers in float64")
        double = run(graph, job.inputs[SAMPLED], "float64", layers).samples
    arrays: dict[str, Any] = {}
    for index, layer in enumerate(layers):
        arrays[f"{index}_f32"] = single.samples[layer.node]
        arrays[f"{index}_f64"] = double[layer.node]
    np.savez(job.folder / LAYERS, **arrays)
    job.manifest.winograd = _winograd_convolutions(graph)
    job.manifest.layers = [asdict(layer) for layer in layers]
