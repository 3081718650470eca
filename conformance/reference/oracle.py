"""What TensorFlow answers: outputs, logits and sampled activations, in float32 or float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from conformance.pack.sampling import node_seed, sample_positions, within

from .graph import (
    INT32,
    INT64,
    Array,
    Graph,
    constant,
    dependents,
    operation,
    placeholder,
    reshape,
    sources,
)
from .graph.precision import promoted
from .graph.session import fetch, open_session

# What TensorFlow raises for a graph whose shapes or attributes do not fit together.
REFUSED = (tf.errors.OpError, ValueError)

# Bytes the activations of one chunk of images may take by our estimate; weights come on top.
MEMORY_BUDGET = 1 << 30


@dataclass(frozen=True)
class Layer:
    """A float node that depends on the input. shape: [N, …], NHWC, N the number of images."""

    node: str
    op: str
    inputs: list[str]
    shape: list[int]

    def positions(self) -> Array:
        """Return the sorted flat positions (int64 [S]) at which its activation is kept."""
        return sample_positions(self.shape, node_seed(self.node))


@dataclass(frozen=True)
class Answers:
    """outputs, logits: [N,C]. samples: {node: [S + 2 N]} of each layer, as sampling.py has it.

    results: {node: [N, …]} of all that the graph is asked for, outputs and logits among it.
    """

    outputs: Array
    logits: Array
    samples: dict[str, Array]
    results: dict[str, Array] = field(default_factory=dict)


def list_layers(graph: Graph, images: int) -> list[Layer]:
    """Return the layers of `graph` for a batch of `images`, in topological order.

    A layer is a float node whose value depends on the input; Identity is left out.
    """
    shapes = _float_shapes(graph)
    return [
        Layer(node.name, node.op, sources(node), [images, *shapes[node.name]])
        for node in graph.definition.node
        if node.name in shapes and node.op not in ("Identity", "Placeholder")
    ]


def _float_shapes(graph: Graph) -> dict[str, list[int]]:
    """Return {node: shape without the batch} of the float32 nodes that depend on the input.

    A node whose shape TensorFlow can't tell before it runs is left out.
    """
    known = {name: graph.values[name] for name in dependents(graph) if name in graph.values}
    return {
        name: value.shape.as_list()[1:]
        for name, value in known.items()
        if value.dtype == tf.float32 and value.shape[1:].is_fully_defined()
    }


def run(
    graph: Graph,
    inputs: Array,
    dtype: str = "float32",
    sampled: Sequence[Layer] = (),
    at: slice = slice(None),
    budget: int = MEMORY_BUDGET,
) -> Answers:
    """Run `graph` on `inputs`, float32 [N,H,W,3], in chunks of images that fit in `budget` bytes.

    dtype: "float32", every node as it stands, or "float64", the same weights with every
    operation in double precision. sampled: layers whose activations are wanted, for as many images
    as inputs[at] has, of which they are; they are gathered inside TensorFlow, whole activations
    never leave it.
    """
    chunk = chunk_size(graph, np.dtype(dtype).itemsize, budget)
    precise = promoted(graph) if dtype == "float64" else graph
    images, numbers = inputs.astype(dtype, copy=False), np.arange(len(inputs))
    with open_session(_tapped(precise, sampled, dtype)) as session:
        some = _in_chunks(session, precise, images[at], chunk, sampled)
        others = _in_chunks(session, precise, images[np.delete(numbers, at)], chunk)
    order = np.argsort(np.concatenate([numbers[at], np.delete(numbers, at)]))
    results = {
        node: np.concatenate([part[node] for part in (some, others) if part])[order]
        for node in graph.results()
    }
    samples = {
        layer.node: np.concatenate([some[_tap(layer.node, part)] for part in _PARTS])
        for layer in sampled
    }
    return Answers(results[graph.output], results[graph.logits], samples, results)


def _in_chunks(
    session: Any, graph: Graph, images: Array, chunk: int, sampled: Sequence[Layer] = ()
) -> dict[str, Array]:
    """Return the values of the graph's results and of the taps; nothing where there is no image."""
    positions = {layer.node: layer.positions() for layer in sampled}
    wanted = [*graph.results(), *(_tap(node, part) for node in positions for part in _PARTS)]
    parts = []
    for start in range(0, len(images), chunk):
        feeds = {**graph.constants, graph.input: images[start : start + chunk]}
        for layer in sampled:
            taken, _ = within(positions[layer.node], layer.shape, start, start + chunk)
            feeds[_tap(layer.node, "positions")] = taken
        parts.append(fetch(session, feeds, wanted))
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted if parts}


def chunk_size(graph: Graph, itemsize: int, budget: int = MEMORY_BUDGET) -> int:
    """Return how many images to run at once so that activations take at most `budget` bytes.

    One at a time where the graph takes no other number.
    """
    shape = graph.nodes()[graph.input].attr["shape"].shape
    if shape.dim and shape.dim[0].size > 0:
        return int(shape.dim[0].size)
    return max(1, budget // (live_elements(graph) * itemsize))


def live_elements(graph: Graph) -> int:
    """Return the most activation elements of one image alive at once, in topological order."""
    sizes = {name: int(np.prod(shape)) for name, shape in _float_shapes(graph).items()}
    last_use = {name: node.name for node in graph.definition.node for name in sources(node)}
    live = peak = 0
    for node in graph.definition.node:
        live += sizes.get(node.name, 0)
        peak = max(peak, live)
        live -= sum(sizes.get(n, 0) for n in set(sources(node)) if last_use[n] == node.name)
    return peak


# Of a layer's samples, in their order.
_PARTS = ("values", "greatest", "least")


def _tap(node: str, part: str) -> str:
    return f"sampled/{node}/{part}"


def _tapped(graph: Graph, sampled: Sequence[Layer], dtype: str) -> Any:
    """Return the definition of `graph` with what is fetched of each layer's activation."""
    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(graph.definition)
    for layer in sampled:
        kind = tf.as_dtype(dtype).as_datatype_enum
        definition.node.extend(_gather_nodes(layer.node, kind))
        definition.node.extend(_extreme_nodes(layer, kind))
    return definition


def _extreme_nodes(layer: Layer, dtype: int) -> Iterator[Any]:
    node, size = layer.node, int(np.prod(layer.shape[1:]))
    yield constant(_tap(node, "images/shape"), np.array([-1, size], np.int32))
    yield constant(_tap(node, "images/axis"), np.array([1], np.int32))
    yield reshape(_tap(node, "images"), node, _tap(node, "images/shape"), dtype)
    for part, op in (("greatest", "Max"), ("least", "Min")):
        operands = [_tap(node, "images"), _tap(node, "images/axis")]
        yield operation(op, _tap(node, part), operands, T=dtype, Tidx=INT32)


def _gather_nodes(node: str, dtype: int) -> Iterator[Any]:
    yield placeholder(_tap(node, "positions"), tf.int64, [None])
    yield constant(_tap(node, "shape"), np.array([-1], np.int32))
    yield constant(_tap(node, "axis"), np.array(0, np.int32))
    flat = reshape(_tap(node, "flat"), node, _tap(node, "shape"), dtype)
    yield flat
    operands = [flat.name, _tap(node, "positions"), _tap(node, "axis")]
    types = {"Tparams": dtype, "Tindices": INT64, "Taxis": INT32}
    yield operation("GatherV2", _tap(node, "values"), operands, **types)
