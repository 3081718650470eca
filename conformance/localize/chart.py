"""A model's profile as a picture: each node's deviation from float64 beside its noise floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from conformance.charts import draw, layer_chart, with_rows
from conformance.verdict.nodes import NodeDeviation, first_bad

# A deviation of nothing has no place on a logarithmic axis.
_LEAST = 1e-12
_WIDTH = 900


def draw_profile(path: Path, nodes: Sequence[NodeDeviation], title: str) -> None:
    """Draw observed, noise and allowed over the nodes that OpenCV has a layer of.

    The first node out of the noise is marked. Raises ConformanceError without the extra "report",
    or where `path` can't be written.
    """
    chart = layer_chart()
    first = first_bad(nodes)
    rows = [_row(place, node) for place, node in enumerate(nodes) if node.observed is not None]
    if first is not None:
        x = {"datum": nodes.index(first)}
        rule = {"mark": {"type": "rule", "color": "@failed"}, "encoding": {"x": x}}
        chart["layer"] = [rule, *chart["layer"]]
        title = f"{title}; first out of the noise: {first.node} ({first.op})"
    draw(with_rows(chart, rows, title, _WIDTH), path, f"--plot {path}")


def _row(place: int, node: NodeDeviation) -> dict[str, object]:
    observed = node.observed if node.observed and math.isfinite(node.observed) else _LEAST
    return {
        "place": place,
        "observed": max(observed, _LEAST),
        "noise": max(node.noise, _LEAST),
        "allowed": max(node.allowed, _LEAST),
    }
