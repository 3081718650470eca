"""A model's profile as a picture: each node's deviation from float64 beside its noise floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import ConformanceError
from conformance.verdict.localize import NodeDeviation, first_bad

# A deviation of nothing has no place on a logarithmic axis.
_LEAST = 1e-12


def draw_profile(path: Path, nodes: Sequence[NodeDeviation], title: str) -> None:
    """Draw observed, noise and allowed over the nodes that OpenCV has a layer of.

    Raises ConformanceError without matplotlib, or where `path` can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConformanceError(
            f"drawing needs matplotlib ({error}): "
            "python -m pip install 'opencv-dnn-conformance[report]'"
        ) from error
    figure = Figure(figsize=(12, 5), layout="constrained")
    _draw(figure.add_subplot(), [node for node in nodes if node.observed is not None], title)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConformanceError(f"--plot {path}: can't be written ({error})") from error


def _draw(axes: Any, nodes: Sequence[NodeDeviation], title: str) -> None:
    place = np.arange(len(nodes))
    observed = np.array([node.observed for node in nodes], float)
    ceiling = 10 * max(np.max(observed[np.isfinite(observed)], initial=1.0), 1.0)
    for label, values, style in (
        ("allowed", [node.allowed for node in nodes], {"color": "tab:gray", "linestyle": "--"}),
        ("OpenCV", np.minimum(observed, ceiling), {"color": "tab:blue", "marker": "."}),
        ("TensorFlow float32 (noise floor)", [n.noise for n in nodes], {"color": "tab:green"}),
    ):
        axes.plot(place, np.maximum(values, _LEAST), label=label, linewidth=1, **style)
    first = first_bad(nodes)
    if first is not None:
        at = nodes.index(first)
        label = f"first out of the noise: {first.node} ({first.op})"
        axes.axvline(at, color="tab:red", label=label)
    axes.set(yscale="log", title=title, xlabel="node, in topological order", xlim=(0, len(nodes)))
    axes.set_ylabel("root mean square deviation")
    axes.legend(loc="best", fontsize="small")
    axes.grid(alpha=0.3)
