"""Where does OpenCV leave the noise? The graph's nodes one by one, from the input on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional

import numpy as np

from conformance.candidate import CandidateRun
from conformance.pack.format import Layer
from conformance.pack.sampling import MAX_SAMPLES

from .judgement import Judgement, json_number
from .metrics import METRICS, Array
from .tolerance import EPS32, Allowance

METRIC = "layer_rms"
# Of a softmax's own rounding: 1000 exponentials and their sum, as for the sum in tolerances.toml.
SOFTMAX_EPS = 128
# A mean of K values, added one after the other: each partial sum is rounded by up to half an eps of
# itself. At random that comes to sqrt(K) / 6 eps, but areas of one colour are all rounded alike:
# 23 eps of 576 values were measured (classic engine, 5.0.0). TensorFlow adds in pairs, and shows no
# such noise.
MEAN_EPS = 2

# Nodes that OpenCV may have no layer of: they move values but compute none, and what they do wrong
# shows in the node after them.
WITHOUT_VALUES = (
    *("Pad", "PadV2", "MirrorPad", "Reshape", "Squeeze", "StridedSlice", "ExpandDims"),
    *("Flatten", "Unsqueeze", "Slice", "Transpose", "Cast"),  # of ONNX
    *("PAD", "PADV2", "MIRROR_PAD", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "STRIDED_SLICE"),
    *("SLICE", "TRANSPOSE", "QUANTIZE"),  # of TFLite
)
_SOFTMAXES = ("Softmax", "SOFTMAX")
_MEANS = ("Mean", "ReduceMean", "GlobalAveragePool", "AveragePool", "MEAN", "AVERAGE_POOL_2D")


@dataclass(frozen=True)
class NodeDeviation:
    """One graph node: how far its values stray from float64, as a root mean square.

    layer: OpenCV's layer that holds the values, None where there is none. observed: inf where a
    value is not finite or the shape is wrong; None without a layer. noise: TensorFlow's float32 by
    the same measure. absent: why there is no layer, or how its shape is wrong.
    multiple: of the noise that is allowed, 0 where `allowed` has nothing to do with the noise.
    """

    node: str
    op: str
    inputs: tuple[str, ...]
    layer: Optional[str]
    observed: Optional[float]
    noise: float
    allowed: float
    absent: str = ""
    multiple: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether it strays farther than it may, or nothing in OpenCV speaks for it.

        A node without a layer of its own is spoken for by the next node, where it was folded into
        that one or only moves values.
        """
        if self.observed is None:
            return "folded into" not in self.absent and self.op not in WITHOUT_VALUES
        return not self.observed <= self.allowed

    @property
    def used(self) -> float:
        """The share of what is allowed, 0 without a layer; above 1 is bad."""
        if not self.observed:
            return float("inf") if self.bad else 0.0
        return self.observed / self.allowed if self.allowed else float("inf")


def profile(
    layers: Iterable[Layer], run: CandidateRun, allow: Callable[[Layer], Allowance]
) -> list[NodeDeviation]:
    """Return every node of the pack, in topological order.

    allow: returns what ``layer_rms`` may reach at a node.
    """
    nodes = []
    sizes: dict[str, int] = {}
    widened: dict[str, float] = {}  # by what factor, and so what depends on it
    before: Optional[Layer] = None
    for layer in layers:
        sizes[layer.node] = int(np.prod(layer.shape))
        inputs = [run.layer_samples.get(name) for name in layer.inputs]
        logits = inputs[0] if inputs else None
        if _is_whole_softmax(layer) and logits is not None and layer.node in run.layer_samples:
            nodes.append(_softmax_node(layer, run, logits, before))
        else:
            allowance = allow(layer)
            factor = max((widened.get(name, 1.0) for name in layer.inputs), default=1.0)
            if layer.op in _MEANS and layer.inputs[0] in sizes:
                terms = sizes[layer.inputs[0]] / max(1, sizes[layer.node])
                factor = max(factor, _of_mean(layer, allowance, terms))
            widened[layer.node] = factor
            nodes.append(_node(layer, run, replace(allowance, values=factor * allowance.values)))
        before = layer
    return nodes


def _of_mean(layer: Layer, allowance: Allowance, terms: float) -> float:
    """Return how many times its allowance a mean of `terms` values may stray, 1 or more.

    TensorFlow's noise in the nodes after it comes from the mean's: the factor is theirs as well.
    """
    truth = layer.f64[None]
    floor = MEAN_EPS * np.sqrt(terms) * EPS32 * METRICS[METRIC].measure(truth, 0 * truth)[0]
    allowed = float(allowance.values[0])
    return max(1.0, float(floor) / allowed) if allowed else 1.0


def _is_whole_softmax(layer: Layer) -> bool:
    """Whether it is a softmax [N, C] of which every value was sampled, as its logits then were."""
    size = int(np.prod(layer.shape))
    floating = layer.op in _SOFTMAXES and not layer.step
    return floating and len(layer.shape) == 2 and size <= MAX_SAMPLES


def _node(layer: Layer, run: CandidateRun, allowance: Allowance) -> NodeDeviation:
    observed = None
    if layer.node in run.layers_wrong:
        observed = float("inf")
    elif layer.node in run.layer_samples:
        given = run.layer_samples[layer.node][None]
        observed = float(METRICS[METRIC].measure(given, layer.f64[None])[0])
    noise, allowed = float(allowance.noise[0]), float(allowance.values[0])
    return _deviation(layer, run, observed, noise, allowed, allowance.multiple)


def _softmax_node(
    layer: Layer, run: CandidateRun, logits: Array, before: Optional[Layer]
) -> NodeDeviation:
    """Judge a softmax [N, C] by the logits that it was given, on the images sampled whole.

    What they strayed before is theirs; a softmax makes much of it on one image and nothing on the
    next, so that no noise floor of a few images holds for it. Its noise is TensorFlow's by the same
    measure, where the node before is the one that gave it its logits.
    """
    classes = layer.shape[-1]
    count = len(layer.positions()) // classes * classes
    truth = _softmax(logits[:count], classes)
    if not np.isfinite(truth).all():
        truth = layer.f64[None, :count]  # of logits that are none the reference's is the right one
    measure = METRICS[METRIC].measure
    observed = measure(run.layer_samples[layer.node][None, :count], truth)[0]
    noise = measure(layer.f32[None], layer.f64[None])[0]
    if before is not None and before.node == layer.inputs[0]:
        noise = measure(layer.f32[None, :count], _softmax(before.f32[:count], classes))[0]
    allowed = SOFTMAX_EPS * EPS32 * measure(truth, 0 * truth)[0]
    return _deviation(layer, run, float(observed), float(noise), float(allowed))


def _softmax(logits: Array, classes: int) -> Array:
    """Return the softmax of each `classes` logits in float64, [1, S]."""
    powers = logits.reshape(-1, classes).astype(np.float64)
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True)).reshape(1, -1)


def _deviation(
    layer: Layer,
    run: CandidateRun,
    observed: Optional[float],
    noise: float,
    allowed: float,
    multiple: float = 0.0,
) -> NodeDeviation:
    return NodeDeviation(
        layer.node,
        layer.op,
        layer.inputs,
        run.layer_of.get(layer.node),
        observed,
        noise,
        allowed,
        run.layers_wrong.get(layer.node) or run.layers_absent.get(layer.node, ""),
        multiple,
    )


def first_bad(nodes: Iterable[NodeDeviation]) -> Optional[NodeDeviation]:
    """Return the first node that strays farther than it may, or None."""
    return next((node for node in nodes if node.bad), None)


def judge_layers(nodes: Sequence[NodeDeviation]) -> Judgement:
    """No node strays farther than it may; tells the first that does, else the nearest to it."""
    first = first_bad(nodes)
    shown = first or max(nodes, key=lambda node: node.used)
    return Judgement(
        METRIC,
        first is None,
        float("inf") if shown.observed is None else shown.observed,
        shown.allowed,
        reason=f"{shown.op} {shown.node!r}",
        noise=shown.noise,
        multiple=shown.multiple or None,
        required=_required(nodes),
    )


def _required(nodes: Sequence[NodeDeviation]) -> Optional[float]:
    """Return the multiple of the noise that would let every node pass, None if none would."""
    needed = max((node.used * node.multiple for node in nodes), default=0.0)
    return (
        needed if np.isfinite(needed) and not any(n.bad and not n.multiple for n in nodes) else None
    )


def describe(node: NodeDeviation, nodes: Sequence[NodeDeviation]) -> str:
    """Return in words what a bad node is, and how its inputs fare."""
    bad = sum(other.bad for other in nodes)
    text = f"first node out of the noise (of {bad}): {node.node!r}, {node.op}"
    if node.layer:
        text += f", OpenCV layer {node.layer!r}"
    if node.absent:
        return f"{text}: {node.absent}"
    text += f": strays by {node.observed:.3g} (root mean square), allowed {node.allowed:.3g}"
    return f"{text}; {_of_inputs(node, nodes)}"


def _of_inputs(node: NodeDeviation, nodes: Sequence[NodeDeviation]) -> str:
    by_name = {other.node: other for other in nodes}
    sources = [by_name[name] for name in held_sources(node, by_name)]
    if not sources:
        return "its input is the network's"
    worst = max(sources, key=lambda source: source.used)
    return f"its inputs by up to {worst.observed:.3g}, allowed {worst.allowed:.3g}"


def held_sources(node: NodeDeviation, by_name: Mapping[str, NodeDeviation]) -> list[str]:
    """Return the nearest nodes before `node` that have a layer."""
    found: list[str] = []
    pending = [name for name in node.inputs if name in by_name]
    while pending:
        name = pending.pop(0)
        if by_name[name].observed is not None:
            found.append(name)
        else:
            pending += [source for source in by_name[name].inputs if source in by_name]
    return list(dict.fromkeys(found))


def layers_line(model: str, variant: str, nodes: Sequence[NodeDeviation]) -> dict[str, object]:
    """Return the line of a results file that holds the profile."""
    return {
        "kind": "layers",
        "model": model,
        "variant": variant,
        "nodes": [node.node for node in nodes],
        "ops": [node.op for node in nodes],
        "observed": [_rounded(node.observed) for node in nodes],
        "noise": [_rounded(node.noise) for node in nodes],
        "allowed": [_rounded(node.allowed) for node in nodes],
    }


def _rounded(value: Optional[float]) -> object:
    # Three digits: a profile is read as a curve, and there are some 500 nodes a model.
    return None if value is None else json_number(float(f"{value:.3g}"))
