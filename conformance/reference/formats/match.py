"""Which node of the frozen graph each tensor of a converted file equals, settled by value.

Names are a hint only: a converter folds batch norm, bias and activation into one operation and
calls it after any of them, or after none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

import numpy as np

from conformance.pack.format import Layer
from conformance.pack.sampling import within
from conformance.reference.graph import Array

# A tensor is a node's where they differ by no more than this share of the node's root mean square.
# Rounding gives 1e-7 to 1e-5; another node of the same shape differs by its own size, and a node
# before a bias by some hundredths.
SAME = 1e-3
# float32 rounding, as a share of the node's root mean square, where it comes to nothing else.
ROUNDING = 1e-6

Inner = Mapping[str, Array]


class Matcher:
    """Pairs tensors with the pack's sampled nodes on one image, then measures them on all.

    layers: of the pack; images: how many of its images are sampled.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._layers = {layer.node: layer for layer in layers}
        self._by_shape: dict[tuple[int, ...], list[Layer]] = defaultdict(list)
        for layer in self._layers.values():
            self._by_shape[layer.shape[1:]].append(layer)
        self.node_of: dict[str, str] = {}
        self._turned: dict[str, bool] = {}
        self._samples: dict[str, Array] = {}

    def pair(self, values: Inner) -> None:
        """Find each tensor's node by its value for the first sampled image."""
        for tensor, value in values.items():
            if value.dtype == np.float32 and value.ndim > 1:
                self._pair(tensor, value)
        self._pass_on(values)

    def _pair(self, tensor: str, value: Array) -> None:
        hints = tensor.split(":")[0].split(";")
        best: Optional[tuple[float, str, bool]] = None
        for turned in (False, True) if value.ndim == 4 else (False,):
            last = value.transpose(0, 2, 3, 1) if turned else value
            candidates = self._by_shape.get(last.shape[1:], [])
            for layer in sorted(candidates, key=lambda layer: layer.node not in hints):
                off = _difference(layer, last)
                if best is None or off < best[0]:
                    best = off, layer.node, turned
                if off <= SAME and layer.node in hints:
                    break
        if best is not None and best[0] <= SAME:
            _, self.node_of[tensor], self._turned[tensor] = best

    def _pass_on(self, values: Inner) -> None:
        """Let a tensor stand for the node after its own where that has its values and no tensor.

        So it is where a converter drops the addition of a bias that is all zeros.
        """
        users: dict[str, list[Layer]] = defaultdict(list)
        for layer in self._layers.values():
            for name in set(layer.inputs):
                users[name].append(layer)
        held = set(self.node_of.values())
        for tensor, node in self.node_of.items():
            value = self._last(tensor, values)
            off = max(2 * _difference(self._layers[node], value), ROUNDING)
            while len(users[node]) == 1:
                (after,) = users[node]
                fits = after.shape[1:] == value.shape[1:] and after.node not in held
                if not fits or _difference(after, value) > off:
                    break
                node = after.node
            self.node_of[tensor] = node

    def _last(self, tensor: str, values: Inner) -> Array:
        """Return the tensor's value with the channels last."""
        value = values[tensor]
        return value.transpose(0, 2, 3, 1) if self._turned[tensor] else value

    def add(self, image: int, values: Inner) -> None:
        """Take the samples of sampled image number `image` of every paired tensor."""
        for tensor, node in self.node_of.items():
            layer, last = self._layers[node], self._last(tensor, values)
            at, inside = within(layer.positions(), layer.shape, image, image + 1)
            samples = self._samples.setdefault(tensor, np.empty(len(layer.positions()), np.float32))
            samples[inside] = last.reshape(-1)[at]

    def strays(self, allowed: Callable[[Array, Array], float]) -> dict[str, Any]:
        """Return the tensor whose own runtime strays most beside what `allowed` says.

        allowed: gives it for a node's float32 and float64 samples [1, S], as a root mean square.
        Keys: tensor, node, observed, allowed; empty where no tensor was paired.
        """
        found = []
        for tensor, samples in self._samples.items():
            layer = self._layers[self.node_of[tensor]]
            count = len(samples)
            observed = float(np.sqrt(np.mean((samples - layer.f64[:count]) ** 2)))
            limit = allowed(layer.f32[None], layer.f64[None])
            found.append((observed / limit if limit else 0.0, tensor, observed, limit))
        if not found:
            return {}
        _, tensor, observed, limit = max(found)
        node = self.node_of[tensor]
        return {"tensor": tensor, "node": node, "observed": observed, "allowed": limit}


def _difference(layer: Layer, value: Array) -> float:
    """Return how far the first image's value is from the node's, in the node's own size."""
    at, inside = within(layer.positions(), layer.shape, 0, 1)
    truth = layer.f64[inside]
    size = float(np.sqrt(np.mean(truth**2))) or 1.0
    return float(np.sqrt(np.mean((value.reshape(-1)[at] - truth) ** 2))) / size
