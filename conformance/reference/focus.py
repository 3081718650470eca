"""Every node's samples on one input: ``python -m conformance.reference.focus PACK INDEX FILE``.

A process of its own, so that a failure is localised without TensorFlow in the tests' process.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conformance.pack.format import Pack, read_manifest
from conformance.processes.serve import answer_once

from .graph import Graph, heads_of, read_graph, with_input_shape
from .oracle import Layer, run


def write_samples(pack: Pack, index: int, file: Path) -> None:
    """Write the samples of the pack's layers on its input number `index`, in float32 and float64.

    Both are of the frozen graph, which is what OpenCV reads; test_freezing.py judges it.
    """
    graph, image = _graph(pack), pack.load("inputs")[index : index + 1]
    layers = [
        Layer(entry["node"], entry["op"], entry["inputs"], [1, *entry["shape"][1:]])
        for entry in pack.manifest.layers
    ]
    arrays: dict[str, Any] = {}
    for kind, dtype in (("f32", "float32"), ("f64", "float64")):
        samples = run(graph, image, dtype, layers).samples
        arrays.update({f"{n}_{kind}": samples[layer.node] for n, layer in enumerate(layers)})
    np.savez(file, **arrays)


def _graph(pack: Pack) -> Graph:
    manifest = pack.manifest
    graph = read_graph(pack.graph_path, manifest.tensors, heads_of(manifest.heads))
    if manifest.own is None:
        return graph
    shape = [manifest.own["batch"], *manifest.own["input_shape"]]
    return replace(graph, definition=with_input_shape(graph.definition, graph.input, shape))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pack, index, file = Pack(folder, read_manifest(folder)), int(sys.argv[2]), Path(sys.argv[3])
    answer_once(lambda: write_samples(pack, index, file))
