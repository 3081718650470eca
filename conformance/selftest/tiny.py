"""A complete pack of a tiny network, made with NumPy alone.

The network has what the real ones have, small: a convolution with bias, ReLU, max pooling, a
convolution whose batch norm is a Mul and an AddV2, ReLU6, global average, MatMul with bias and a
softmax. `activations` is its definition in NumPy and `graph_nodes` the same in TensorFlow's terms;
a self-test holds OpenCV against both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.inputs.preprocessing import get_mode
from conformance.pack.format import GRAPH, LAYERS, PREPROCESSING, Pack, new_manifest
from conformance.pack.request import PackRequest, producer_versions
from conformance.pack.sampling import SAMPLED, node_seed, sampled_values
from conformance.pack.store import write_pack

from .graphdef import (
    DT_FLOAT,
    DT_INT32,
    Node,
    constant,
    of_flag,
    of_ints,
    of_shape,
    of_text,
    of_type,
    operation,
    write_graph,
)

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

INPUT, LOGITS, OUTPUT = "x", "head/BiasAdd", "probabilities"
FILTERS = (8, 12)


def tiny_weights(classes: int = 10, seed: int = 0) -> Arrays:
    """Return seeded float32 weights; kernels are HWIO, as TensorFlow has them."""
    rng = np.random.RandomState(seed)
    first, second = FILTERS
    return {
        name: (rng.standard_normal(shape) * scale + shift).astype(np.float32)
        for name, shape, scale, shift in (
            ("conv1/kernel", (3, 3, 3, first), 0.4, 0.0),
            ("conv1/bias", (first,), 0.2, 0.0),
            ("conv2/kernel", (3, 3, first, second), 0.2, 0.0),
            ("bn/scale", (second,), 0.1, 1.0),
            ("bn/shift", (second,), 0.2, 0.3),
            ("head/kernel", (second, classes), 1.5, 0.0),
            ("head/bias", (classes,), 0.5, 0.0),
        )
    }


def convolve(x: Array, kernel: Array) -> Array:
    """Convolve NHWC `x` with a 3x3 HWIO kernel, stride 1, SAME padding."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = ((i, j) for i in range(3) for j in range(3))
    terms = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in shifts]
    return np.asarray(sum(terms))


def max_pool(x: Array) -> Array:
    """Take the maximum of each 2x2 square of NHWC `x`, whose height and width are even."""
    n, height, width, channels = x.shape
    return np.asarray(x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4)))


def softmax(logits: Array) -> Array:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def activations(x: Array, weights: Arrays, dtype: Any = np.float64) -> Arrays:
    """Return every node's activation (NHWC) for NHWC inputs, computed in `dtype`."""
    w = {name: value.astype(dtype) for name, value in weights.items()}
    out: Arrays = {}
    out["conv1/Conv2D"] = convolve(x.astype(dtype), w["conv1/kernel"])
    out["conv1/BiasAdd"] = out["conv1/Conv2D"] + w["conv1/bias"]
    out["conv1/Relu"] = np.maximum(out["conv1/BiasAdd"], 0)
    out["pool/MaxPool"] = max_pool(out["conv1/Relu"])
    out["conv2/Conv2D"] = convolve(out["pool/MaxPool"], w["conv2/kernel"])
    out["bn/mul"] = out["conv2/Conv2D"] * w["bn/scale"]
    out["bn/add"] = out["bn/mul"] + w["bn/shift"]
    out["conv2/Relu6"] = np.clip(out["bn/add"], 0, 6)
    out["gap/Mean"] = out["conv2/Relu6"].mean(axis=(1, 2))
    out["head/MatMul"] = out["gap/Mean"] @ w["head/kernel"]
    out[LOGITS] = out["head/MatMul"] + w["head/bias"]
    out[OUTPUT] = softmax(out[LOGITS])
    return out


def graph_nodes(weights: Arrays, size: int = 16) -> list[Node]:
    """Return the network as GraphDef nodes for inputs of `size` x `size` pixels."""
    conv = {
        "strides": of_ints([1, 1, 1, 1]),
        "padding": of_text("SAME"),
        "data_format": of_text("NHWC"),
        "dilations": of_ints([1, 1, 1, 1]),
    }
    pool = {
        "ksize": of_ints([1, 2, 2, 1]),
        "strides": of_ints([1, 2, 2, 1]),
        "padding": of_text("VALID"),
        "data_format": of_text("NHWC"),
    }
    plain = {"transpose_a": of_flag(False), "transpose_b": of_flag(False)}
    mean = {"Tidx": of_type(DT_INT32), "keep_dims": of_flag(False)}
    nhwc = {"data_format": of_text("NHWC")}
    shape = {"dtype": of_type(DT_FLOAT), "shape": of_shape([-1, size, size, 3])}
    return [
        Node(INPUT, "Placeholder", (), shape),
        *(constant(name, value) for name, value in weights.items()),
        constant("gap/axes", np.array([1, 2], np.int32)),
        operation("conv1/Conv2D", "Conv2D", INPUT, "conv1/kernel", **conv),
        operation("conv1/BiasAdd", "BiasAdd", "conv1/Conv2D", "conv1/bias", **nhwc),
        operation("conv1/Relu", "Relu", "conv1/BiasAdd"),
        operation("pool/MaxPool", "MaxPool", "conv1/Relu", **pool),
        operation("conv2/Conv2D", "Conv2D", "pool/MaxPool", "conv2/kernel", **conv),
        operation("bn/mul", "Mul", "conv2/Conv2D", "bn/scale"),
        operation("bn/add", "AddV2", "bn/mul", "bn/shift"),
        operation("conv2/Relu6", "Relu6", "bn/add"),
        operation("gap/Mean", "Mean", "conv2/Relu6", "gap/axes", **mean),
        operation("head/MatMul", "MatMul", "gap/Mean", "head/kernel", **plain),
        operation(LOGITS, "BiasAdd", "head/MatMul", "head/bias", **nhwc),
        operation(OUTPUT, "Softmax", LOGITS),
    ]


def tiny_inputs(size: int = 16, count: int = 8, seed: int = 1) -> Array:
    """Return float32 NHWC inputs in -1..1 of differing brightness, contrast and colour."""
    rng = np.random.RandomState(seed)
    noise = rng.uniform(-1, 1, (count, size, size, 3)) * rng.uniform(0.2, 0.6, (count, 1, 1, 1))
    return np.clip(noise + rng.uniform(-0.6, 0.6, (count, 1, 1, 3)), -1, 1).astype(np.float32)


def layer_entries(nodes: list[Node], outs: Arrays) -> list[dict[str, Any]]:
    """Return the manifest's "layers" for the nodes that have an activation in `outs`."""
    return [
        {
            "node": node.name,
            "op": node.op,
            "inputs": list(node.inputs),
            "shape": list(outs[node.name][SAMPLED].shape),
        }
        for node in nodes
        if node.name in outs
    ]


def fill_tiny(folder: Path, nodes: list[Node], x: Array, f32: Arrays, f64: Arrays) -> None:
    """Write the files of the pack: graph, inputs, outputs, logits, layers, preprocessing."""
    write_graph(folder / GRAPH, nodes)
    np.save(folder / "inputs.npy", x)
    for suffix, outs in (("f32", f32), ("f64", f64)):
        np.save(folder / f"outputs_{suffix}.npy", outs[OUTPUT])
        np.save(folder / f"logits_{suffix}.npy", outs[LOGITS])
    np.save(folder / "frozen_f32.npy", f32[OUTPUT])
    samples: dict[str, Any] = {}
    for index, entry in enumerate(layer_entries(nodes, f64)):
        seed = node_seed(entry["node"])
        samples[f"{index}_f32"] = sampled_values(f32[entry["node"]][SAMPLED], seed)
        samples[f"{index}_f64"] = sampled_values(f64[entry["node"]][SAMPLED], seed)
    np.savez(folder / LAYERS, **samples)
    image = np.random.RandomState(2).randint(0, 256, (2, 37, 53, 3)).astype(np.uint8)
    np.savez(folder / PREPROCESSING, image=image, keras=get_mode("tf").apply(image))


def tiny_pack(
    root: Path,
    model: str = "mobilenet",
    size: int = 16,
    classes: int = 10,
    nodes: Optional[list[Node]] = None,
    inputs: Optional[Array] = None,
) -> Pack:
    """Write a complete pack of the tiny network under `root`, and return it.

    model: the name it goes by, one of mode "tf" in the registry. nodes: the graph for OpenCV to
    read instead of the right one; inputs: float32 NHWC for it instead of 8 seeded images. The
    reference stays what the right network gives for 8 seeded images, so that these are faults.
    """
    weights, x = tiny_weights(classes), tiny_inputs(size)
    right = graph_nodes(weights, size)
    f64, f32 = activations(x, weights), activations(x, weights, np.float32)
    producer = producer_versions() or {"tensorflow": "0", "keras": "0", "numpy": "0", "recipe": "0"}
    tensors = {"input": INPUT, "logits": LOGITS, "output": OUTPUT}
    names = [f"noise{index}" for index in range(len(x))]
    manifest = new_manifest(PackRequest(model), producer, tensors, names)
    manifest.layers = layer_entries(right, f64)

    def fill(folder: Path) -> None:
        fill_tiny(folder, right, x, f32, f64)
        if nodes is not None:
            write_graph(folder / GRAPH, nodes)
        if inputs is not None:
            np.save(folder / "inputs.npy", inputs)

    return write_pack(root, manifest, fill)
