"""Reading the layers of a net: of all in one run, the values at the pack's sample positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import Array, RunConfig
from conformance.pack.heads import by_scale
from conformance.pack.sampling import node_seed, sample_positions, within
from conformance.processes.scratch import Scratch

from .importers import IMPORTERS
from .importers.converted import Entry
from .net import configure, given, read, set_fusion, to_blob

# The same values in another shape, so that one layer stands for both.
_SAME_VALUES = (
    *("Identity", "Reshape", "Squeeze", "ExpandDims", "CheckNumerics"),
    *("Flatten", "Unsqueeze", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"),  # of ONNX and TFLite
)

# Activations that are handed out in one run: OpenCV holds them, and NumPy copies them. A model that
# has more is read again. All of nasnetlarge's at once take 4.5 GiB instead of 2.9, and are 2 % less
# CPU of 15 models.
TAP_BYTES = 700 << 20


def layer_holding(held: Mapping[str, str], entries: Sequence[Entry], node: str) -> str:
    """Return the OpenCV layer that holds the values of the graph node `node`.

    Walks back over nodes that only change the shape. Raises ValueError when there is none.
    """
    layer_of = {held_node: layer for layer, held_node in held.items()}
    by_node = {entry["node"]: entry for entry in entries}
    current = node
    while current not in layer_of:
        entry = by_node.get(current)
        if entry is None or entry["op"] not in _SAME_VALUES or not entry["inputs"]:
            raise ValueError(f"OpenCV has no layer that holds the node {node!r}")
        current = entry["inputs"][0]
    return layer_of[current]


def image_bytes(entry: Entry) -> int:
    """Return how many bytes a layer's float32 activation of one image takes."""
    return 4 * int(np.prod(entry["shape"][1:]))


def in_portions(held: Mapping[str, str], entries: Sequence[Entry], budget: int) -> list[list[str]]:
    """Return the layers of `held`, in order, in as few portions as `budget` bytes an image allow.

    The portions are about equally large, so that the greatest is no greater than need be.
    """
    sizes = {entry["node"]: image_bytes(entry) for entry in entries}
    before = np.cumsum([0] + [sizes[node] for node in held.values()])
    share = before[-1] / max(1, -(-int(before[-1]) // budget))
    portions: dict[int, list[str]] = {}
    for layer, start in zip(held, before):
        portions.setdefault(int(start // share) if share else 0, []).append(layer)
    return list(portions.values())


@dataclass(frozen=True)
class Tap:
    """A net whose inner layers can be read. names: the layers; asked: what forward is asked for.

    layout: of the blob that it takes.
    """

    net: Any
    names: Sequence[str]
    asked: Sequence[str]
    layout: str = "NCHW"


def open_tap(
    cv2: Any,
    graph: Path,
    config: RunConfig,
    names: Sequence[str],
    plain: bool = False,
    parsed: Any = None,
    layout: str = "NCHW",
) -> Tap:
    """Return a net from which the layers `names` can be read.

    parsed: a configured net of the same graph, used instead of reading the graph again where the
    engine allows: the new one must know the names while it reads. plain: no fusion, so that each
    layer has an output of its own, and no Winograd convolution unless `config` asks for it, so
    that rounding is as fine as TensorFlow's. The new engine of 5.0.0 heeds neither switch; what it
    hands out is not fused, but rounded by Winograd.
    """
    new = config.engine == "new"
    if parsed is None or new:
        net = read(cv2, graph, config, extra=names if new else ())
        configure(cv2, net, config)
    else:
        net = parsed
    if plain and not new:
        set_fusion(net, False)
        if config.winograd is None and hasattr(net, "enableWinograd"):
            net.enableWinograd(False)
    # The new engine of 5.0.0 gives either one output or all of them.
    return Tap(net, names, net.getUnconnectedOutLayersNames() if new else names, layout)


def read_tap(tap: Tap, images: Array) -> list[Optional[Array]]:
    """Run NHWC images through the net; return the outputs of ``tap.names``, NCHW as in OpenCV.

    None for one that OpenCV fused into another and does not hand out (ONNX, new engine).

    ``forward(name)`` is avoided: on the new engine of 5.0.0 it returns some other tensor.
    """
    found: list[Optional[Array]] = given(
        tap.net, to_blob(images, tap.layout), lambda: forward_tap(tap)
    )
    return found


def forward_tap(tap: Tap) -> list[Optional[Array]]:
    """Run the input that was set; return the outputs of ``tap.names``."""
    outputs = dict(zip(tap.asked, tap.net.forward(list(tap.asked))))
    values = (outputs.get(name) for name in tap.names)
    return [None if value is None else np.asarray(value) for value in values]


def tap_outputs(cv2: Any, graph: Path, config: RunConfig, names: Sequence[str], net: Any) -> Tap:
    """Return how the outputs `names` of a model with several are read from `net`, just parsed."""
    if config.engine != "new":
        return Tap(net, names, names)
    if not set(names) <= set(net.getUnconnectedOutLayersNames()):
        net = read(cv2, graph, config, extra=names)
    return Tap(net, names, net.getUnconnectedOutLayersNames())


@contextmanager
def open_cut(cv2: Any, graph: Path, config: RunConfig, value: str) -> Iterator[Any]:
    """Give a net of what of the file gives `value`: a tensor of it, or a node of the frozen graph.

    All that is left is fused as it is in the whole network.
    """
    with Scratch() as folder:
        part = Path(folder, graph.name)
        IMPORTERS[config.importer].write_cut(graph, value, part)
        net = read(cv2, part, config)
        configure(cv2, net, config)
        yield net


class LayerSamples:
    """Collects, image by image, the values at the pack's sample positions of each node.

    samples: {node: float32 [S + 2 N]} as sampling.py orders them, NaN until the image was added.
    wrong: {node: reason} for nodes whose output had a shape that cannot be the node's.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._shapes = {entry["node"]: tuple(entry["shape"]) for entry in entries}
        self._steps = {e["node"]: (e["step"], e["zero"]) for e in entries if "zero" in e}
        self._positions = {
            node: sample_positions(shape, node_seed(node)) for node, shape in self._shapes.items()
        }
        self.samples = {
            node: np.full(len(at) + 2 * self._shapes[node][0], np.nan, np.float32)
            for node, at in self._positions.items()
        }
        self.wrong: dict[str, str] = {}

    def add(self, image: int, node: str, output: Array) -> None:
        """Take the samples that lie in image number `image` from that image's output (NCHW)."""
        shape, at = self._shapes[node], self._positions[node]
        if node in self._steps:
            output = by_scale(output, *self._steps[node])
        values = channels_last(output, shape)
        if values is None:
            self.wrong[node] = f"shape {list(output.shape)} in OpenCV, {list(shape)} expected"
            return
        samples = self.samples[node]
        inside, places = within(at, shape, image, image + 1)
        samples[places] = values(inside)
        samples[len(at) + image], samples[len(at) + shape[0] + image] = output.max(), output.min()


def channels_last(output: Array, shape: Sequence[int]) -> Any:
    """Return a function from flat NHWC positions to values of one image's output, or None.

    output: [1, C, H, W], or already in TensorFlow's order (as after Reshape), or [1, C] with any
    number of axes of size 1. shape: [N, H, W, C] or [N, C] of the node. None where they differ.
    """
    flat = output.reshape(-1)
    if flat.size != int(np.prod(shape[1:], dtype=np.int64)):
        return None
    wanted = [size for size in shape[1:] if size != 1]
    turned = [size for size in (shape[-1], *shape[1:-1]) if size != 1]
    actual = [size for size in output.shape if size != 1]
    # Of three axes the last ones are no image: only where they fit no other way are they turned.
    if actual == turned and output.ndim == len(shape) and (len(shape) > 3 or actual != wanted):
        planes = output.reshape(shape[-1], -1)
        return lambda at: planes[at % shape[-1], at // shape[-1]]
    if actual == wanted:
        return lambda at: flat[at]
    return None
