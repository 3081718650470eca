"""Rewrites: parts of a graph put in other but equal words, which OpenCV reads where it fails.

Each is a pattern of operations as data, a check of what the pattern cannot say, and the operations
that take its place. The last of them bears the name of the pattern's last, and has its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Union

import numpy as np

from conformance.reference.graph import (
    FLOAT,
    INT32,
    Array,
    Graph,
    constant,
    operation,
    placeholder,
    sources,
    with_nodes,
)

# An operation with what it takes, the name of a part, or None for anything.
Part = Union[tuple[Any, ...], str, None]
# {part: what it is made of}; "" is the whole, and a part that is not listed may be any node.
Pattern = Mapping[str, Part]
_COMMUTATIVE = ("Add", "AddV2", "Mul")


@dataclass(frozen=True)
class Match:
    """Where a pattern was found: its last node, and the nodes of its parts."""

    last: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Rewrite:
    """found: what the pattern is, and why OpenCV fails at it.

    applies: whether a match can be rewritten. write: the nodes that take its place, and the values
    of those among them that are Placeholders for large constants.
    """

    name: str
    found: str
    pattern: Pattern
    applies: Callable[[Graph, Match], bool]
    write: Callable[[Graph, Match], tuple[list[Any], dict[str, Array]]]


def matches(graph: Graph, pattern: Pattern) -> Iterator[Match]:
    """Yield every place at which the graph has the pattern."""
    nodes = graph.nodes()
    for name in nodes:
        for parts in _matched(nodes, name, pattern[""], pattern, {}):
            yield Match(name, parts)
            break


def _matched(
    nodes: Mapping[str, Any], name: str, part: Part, pattern: Pattern, known: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Yield the nodes of the parts for each way in which the node `name` is `part`.

    known: the nodes of parts met before, which must be the same ones.
    """
    if isinstance(part, str):
        if part in known:
            yield from ([dict(known)] if known[part] == name else [])
            return
        now = {**known, part: name}
        yield from _matched(nodes, name, pattern.get(part), pattern, now)
        return
    if part is None:
        yield dict(known)
        return
    op, *wanted = part
    given = sources(nodes[name])
    if nodes[name].op != op or len(given) != len(wanted):
        return
    for order in permutations(given) if op in _COMMUTATIVE else [tuple(given)]:
        yield from _all_matched(nodes, order, wanted, pattern, known)


def _all_matched(
    nodes: Mapping[str, Any],
    names: tuple[str, ...],
    parts: list[Part],
    pattern: Pattern,
    known: Mapping[str, str],
) -> Iterator[dict[str, str]]:
    if not names:
        yield dict(known)
        return
    for found in _matched(nodes, names[0], parts[0], pattern, known):
        yield from _all_matched(nodes, names[1:], parts[1:], pattern, found)


def rewrite(graph: Graph, step: Rewrite) -> tuple[Graph, int]:
    """Return the graph with every match rewritten, and how many there were."""
    places = _places(graph, step)
    nodes, constants = [], dict(graph.constants)
    for node in graph.definition.node:
        if node.name in places:
            written, values = step.write(graph, places[node.name])
            nodes += written
            constants.update(values)
        else:
            nodes.append(node)
    return (with_nodes(graph, nodes, constants) if places else graph), len(places)


def _are_constants(graph: Graph, match: Match, *parts: str) -> bool:
    names = [match.parts[part] for part in parts]
    return all(n in graph.constants or graph.nodes()[n].op == "Const" for n in names)


def _values(graph: Graph, match: Match, *parts: str) -> list[Array]:
    """Return the values of parts that are constants."""
    return [graph.value_of(match.parts[part]) for part in parts]


def _convolution(name: str, images: str, kernel: str) -> Any:
    """Return a 1x1 Conv2D of NHWC images: for each pixel the product of its channels with a matrix.

    kernel: the name of a constant [1, 1, C, K].
    """
    node = operation("Conv2D", name, (images, kernel), T=FLOAT)
    node.attr["strides"].list.i.extend([1, 1, 1, 1])
    node.attr["padding"].s = b"VALID"
    node.attr["data_format"].s = b"NHWC"
    return node


def _is_dense_of_images(graph: Graph, match: Match) -> bool:
    product = graph.nodes()[match.parts["product"]]
    if product.attr["transpose_a"].b or product.attr["transpose_b"].b:
        return False
    if not _are_constants(graph, match, "order", "kernel"):
        return False
    # Four axes in their order: the Tensordot is over the last one, the channels.
    (order,) = _values(graph, match, "order")
    return list(order) == [0, 1, 2, 3]


def _write_dense(graph: Graph, match: Match) -> tuple[list[Any], dict[str, Array]]:
    (matrix,) = _values(graph, match, "kernel")
    kernel = f"{match.last}/kernel"
    value = matrix.reshape(1, 1, *matrix.shape)
    nodes = [placeholder(kernel, value.dtype, value.shape)]
    return [*nodes, _convolution(match.last, match.parts["images"], kernel)], {kernel: value}


def _write_erfc(graph: Graph, match: Match) -> tuple[list[Any], dict[str, Array]]:
    one, erf = f"{match.last}/one", f"{match.last}/erf"
    return [
        constant(one, np.array(1, np.float32)),
        operation("Erf", erf, (match.parts["x"],), T=FLOAT),
        operation("Sub", match.last, (one, erf), T=FLOAT),
    ], {}


def _is_group_normalization(graph: Graph, match: Match) -> bool:
    if not _are_constants(graph, match, "shape", "axes", "again", "gamma", "beta", "epsilon"):
        return False
    shape, *axes = _values(graph, match, "shape", "axes", "again")
    return len(shape) == 5 and all(over.tolist() == [1, 2, 4] for over in axes)


def _write_group_normalization(graph: Graph, match: Match) -> tuple[list[Any], dict[str, Array]]:
    """Return it on four axes: a group's mean is that of its channels' means, all of equal size."""
    last = match.last
    shape, gamma, beta, epsilon = _values(graph, match, "shape", "gamma", "beta", "epsilon")
    groups, size = (int(side) for side in shape[3:])
    kernel = np.kron(np.eye(groups), np.full((size, size), 1 / size)).astype(np.float32)
    values = {
        f"{last}/groups": kernel.reshape(1, 1, *kernel.shape),
        f"{last}/gamma": gamma.reshape(1, 1, 1, -1),
        f"{last}/beta": beta.reshape(1, 1, 1, -1),
        # One a channel: tf2onnx's optimiser breaks at a single number (max() of an empty shape).
        f"{last}/epsilon": np.full((1, 1, 1, groups * size), epsilon, np.float32),
    }
    nodes = [placeholder(name, value.dtype, value.shape) for name, value in values.items()]
    axes, images = f"{last}/axes", match.parts["images"]

    def add(op: str, name: str, *inputs: str) -> str:
        nodes.append(operation(op, name, inputs, T=FLOAT))
        return name

    def mean_of(name: str, of: str) -> str:
        add("Mean", f"{name}/channels", of, axes)
        nodes[-1].attr["Tidx"].type = INT32
        nodes[-1].attr["keep_dims"].b = True
        nodes.append(_convolution(name, f"{name}/channels", f"{last}/groups"))
        return name

    nodes.append(constant(axes, np.array([1, 2], np.int32)))
    centred = add("Sub", f"{last}/centred", images, mean_of(f"{last}/mean", images))
    variance = mean_of(f"{last}/variance", add("Mul", f"{last}/squared", centred, centred))
    inverse = add(
        "Rsqrt", f"{last}/rsqrt", add("AddV2", f"{last}/add", variance, f"{last}/epsilon")
    )
    scale = add("Mul", f"{last}/scale", inverse, f"{last}/gamma")
    add("AddV2", last, add("Mul", f"{last}/scaled", centred, scale), f"{last}/beta")
    return nodes, values


def fitting(graph: Graph) -> list[str]:
    """Return the names of the rewrites that the graph has a place for."""
    return [step.name for step in REWRITES if _places(graph, step)]


def _places(graph: Graph, step: Rewrite) -> dict[str, Match]:
    found = matches(graph, step.pattern)
    return {match.last: match for match in found if step.applies(graph, match)}


REWRITES = (
    Rewrite(
        "dense_as_convolution",
        "a Dense on an image (Tensordot), whose shapes the graph computes: no importer of OpenCV "
        "reads it; a Conv2D of kernel 1 is the same",
        {
            "": ("Reshape", "product", None),
            "product": (
                "MatMul",
                ("Reshape", ("Transpose", "images", "order"), None),
                "kernel",
            ),
        },
        _is_dense_of_images,
        _write_dense,
    ),
    Rewrite(
        "erfc_as_erf",
        "Erfc, in Keras' gelu, which neither OpenCV's TensorFlow importer nor tf2onnx knows; "
        "1 - Erf is the same",
        {"": ("Erfc", "x")},
        lambda graph, match: True,
        _write_erfc,
    ),
    Rewrite(
        "group_normalization_by_convolution",
        "a GroupNormalization on five axes, which OpenCV refuses or computes wrong; on four axes, "
        "with the mean of a group by a Conv2D of kernel 1, it is the same",
        {
            "": (
                "Reshape",
                (
                    "AddV2",
                    ("Mul", "grouped", "scale"),
                    ("AddV2", ("Mul", ("Neg", "mean"), "scale"), "beta"),
                ),
                None,
            ),
            "grouped": ("Reshape", "images", "shape"),
            "scale": ("Mul", ("Rsqrt", ("AddV2", "variance", "epsilon")), "gamma"),
            "mean": ("Mean", "grouped", "axes"),
            "variance": (
                "Mean",
                ("SquaredDifference", "grouped", ("StopGradient", "mean")),
                "again",
            ),
        },
        _is_group_normalization,
        _write_group_normalization,
    ),
)
