"""Charts as Vega-Lite specifications: the report's page draws them, and pictures are made of them.

A specification names its colours by role; `coloured` puts in CSS variables, so that the page's
light and dark colours apply to a drawn chart too, or plain ones for a picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from .errors import imported, os_errors

Spec = dict[str, Any]

# Colours told apart with the common colour-vision deficiencies (Okabe and Ito), by role.
LIGHT = {
    "ink": "#1f2328",
    "muted": "#59636e",
    "grid": "#d8dee4",
    "series-1": "#0072b2",
    "series-2": "#c25700",
    "series-3": "#00805b",
    "series-4": "#9b4a83",
    "series-5": "#7a6a00",
    "series-6": "#5b5bd6",
    "failed": "#b3261e",
    "errored": "#8250a8",
    "xfailed": "#a86400",
    "skipped": "#59636e",
    "passed": "#1a7f37",
    "not-run": "#afb8c1",
}
WIDTH = 720  # of a picture, in pixels
_CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": "@muted", "titleColor": "@muted", "titleFontWeight": "normal"},
        **{"gridColor": "@grid", "domainColor": "@grid", "tickColor": "@grid"},
    },
    "legend": {
        **{"labelColor": "@ink", "titleColor": "@muted", "orient": "top"},
        **{"symbolStrokeWidth": 2, "labelLimit": 260},
    },
    "range": {
        "category": [f"@series-{number}" for number in range(1, 7)],
        "symbol": ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"],
    },
    "title": {"color": "@ink"},
}
# The kinds of a field's values, abbreviated as in Altair.
_KINDS = {"Q": "quantitative", "O": "ordinal", "N": "nominal"}


def _field(name: str, title: Optional[str] = None, **more: Any) -> Spec:
    """Return an encoding of a field, its kind behind a colon."""
    field, _, kind = name.partition(":")
    return {"field": field, "type": _KINDS[kind], "title": title, **more}


def _tip(**shown: str) -> list[Spec]:
    """Return a tooltip. shown: of each field its title and, behind a bar, a number's format."""
    parts = {name: text.partition("|") for name, text in shown.items()}
    return [
        _field(f"{name}:Q", title, format=form) if form else _field(f"{name}:N", title)
        for name, (title, _, form) in parts.items()
    ]


def _chart(description: str, height: Any, *layers: Spec, columns: int = 3, **more: Any) -> Spec:
    """Return the chart of the layers. columns: of its legend."""
    sized = {"width": "container", "height": height, "data": {"name": "rows"}}
    config = {**_CONFIG, "legend": {**_CONFIG["legend"], "columns": columns}}
    return {"description": description, **sized, "config": config, "layer": [*layers], **more}


def _mark(kind: str, encoding: Spec, **mark: Any) -> Spec:
    return {"mark": {"type": kind, **mark}, "encoding": encoding}


def _lines(encoding: Spec, size: int = 50) -> list[Spec]:
    """Return a line and its points, whose shape tells what their colour tells."""
    marked = {**encoding, "shape": encoding["color"]}
    points = _mark("point", marked, filled=True, opacity=1, size=size)
    return [_mark("line", encoding, strokeWidth=1.8), points]


_VERSION = _field("version:O", sort=None, axis={"labelAngle": -60, "grid": False})
_SERIES, _WHO = _field("series:N", sort=None), _field("who:N", sort=None)
_LOG = {"type": "log", "nice": False, "padding": 8}


def deviation_chart() -> Spec:
    """Deviation and noise floor by version. Rows: version, series, deviation, noise, ratio."""
    figures = {"deviation": "deviation|.2e", "noise": "noise floor|.2e"}
    tip = _tip(version="OpenCV", series="engine", **figures, ratio="deviation / noise|.2f")
    y = _field("deviation:Q", scale=_LOG, axis={"format": ".0e", "tickCount": 4})
    shown = {"x": _VERSION, "y": y, "color": _SERIES, "tooltip": tip}
    floor = {"x": _VERSION, "y": {**y, "field": "noise"}}
    noise = _mark("line", floor, strokeDash=[5, 4], color="@muted", strokeWidth=1.5)
    return _chart("deviation from float64 by OpenCV version", 150, noise, *_lines(shown))


def version_time_chart() -> Spec:
    """Milliseconds by version. Rows: version, series, ms."""
    tip = _tip(version="OpenCV", series="engine", ms="ms|.2f")
    y = _field("ms:Q", "ms", scale={"zero": True}, axis={"tickCount": 4})
    shown = {"x": _VERSION, "y": y, "color": _SERIES, "tooltip": tip}
    return _chart("inference time by OpenCV version", 150, *_lines(shown))


def cost_chart() -> Spec:
    """Costs by version, beside the first's. Rows: version, series, times, value, unit."""
    tip = _tip(version="OpenCV", series="cost", value="value|.2f", unit="unit")
    tip += _tip(times="times the first version's|.2f")
    y = _field("times:Q", "times the first version's", scale={"zero": False}, axis={"tickCount": 5})
    shown = {"x": _VERSION, "y": y, "color": _SERIES, "tooltip": tip}
    return _chart("cost by OpenCV version", 190, *_lines(shown))


def layer_chart() -> Spec:
    """A model's layers in the graph's order. Rows: place, node, op, observed, noise, allowed."""
    figures = {"observed": "observed|.2e", "noise": "noise floor|.2e", "allowed": "allowed|.2e"}
    names = ["observed", "noise floor", "allowed"]
    scale = {"domain": names, "range": ["@series-1", "@muted", "@failed"]}
    axis = {"format": ".0e", "tickCount": 6}

    def encoding(field: str, name: str) -> Spec:
        return {
            "x": _field("place:Q", "node, in the graph's order", axis={"grid": False}),
            "y": _field(f"{field}:Q", "root mean square from float64", scale=_LOG, axis=axis),
            "color": {"datum": name, "type": "nominal", "title": None, "scale": scale},
        }

    observed = {
        **encoding("observed", "observed"),
        "tooltip": _tip(node="node", op="operation", **figures),
    }
    return _chart(
        "how far each layer strays",
        320,
        _mark("line", encoding("allowed", "allowed"), strokeDash=[2, 3]),
        _mark("line", encoding("noise", "noise floor"), strokeDash=[6, 4]),
        _mark("point", observed, filled=True, size=26),
    )


def iteration_chart() -> Spec:
    """The tutorial's chart: time against iteration. Rows: who, iterations (a list of ms)."""
    shown = {
        "x": _field(
            "iteration:Q", "iteration", axis={"grid": False, "tickMinStep": 1, "format": "d"}
        ),
        "y": _field("ms:Q", "ms", scale={"zero": True}),
        "color": _WHO,
        "tooltip": _tip(who="who", iteration="iteration|d", ms="ms|.2f"),
    }
    rounds = {"window": [{"op": "row_number", "as": "iteration"}], "groupby": ["who"]}
    steps = [{"flatten": ["iterations"], "as": ["ms"]}, rounds]
    return _chart(
        "inference time of each iteration", 200, *_lines(shown, 22), columns=1, transform=steps
    )


def bar_chart(figure: str, description: str) -> Spec:
    """Inference time, a bar for each framework. Rows: model, who, ms. figure: which time it is."""
    bars = {
        "y": _field("model:N", sort=None),
        "yOffset": _WHO,
        "x": _field("ms:Q", figure, axis={"tickCount": 8}),
        "color": _WHO,
        "tooltip": _tip(model="model", who="who", ms=f"{figure}|.2f"),
    }
    return _chart(description, {"step": 14}, _mark("bar", bars, cornerRadiusEnd=2), columns=1)


def verdict_chart(verdicts: Mapping[str, str], width: int = 30) -> Spec:
    """The matrix as a picture. Rows: model, column, verdict, symbol.

    verdicts: by each one's name the verdict whose colour it has. width: of a column.
    """
    place = {
        "x": _field("column:O", sort=None, axis={"labelAngle": -60, "orient": "top"}),
        "y": _field("model:N", sort=None),
    }
    colours = [f"@{verdict.replace(' ', '-')}" for verdict in verdicts.values()]
    scale = {"domain": list(verdicts), "range": colours}
    cells = _mark("rect", {**place, "color": _field("verdict:N", scale=scale)}, stroke="white")
    symbols = {**place, "text": _field("symbol:N")}
    text = _mark("text", symbols, color="white", fontWeight="bold")
    return _chart("verdicts", {"step": 24}, cells, text, width={"step": width})


def coloured(spec: Spec, plain: bool = False) -> Spec:
    """Return `spec` with each "@role" replaced: by a colour if `plain`, else by a CSS variable."""
    text = json.dumps(spec)
    for role, colour in LIGHT.items():
        text = text.replace(f'"@{role}"', json.dumps(colour if plain else f"var(--{role})"))
    result: Spec = json.loads(text)
    return result


def with_rows(
    spec: Spec, rows: Sequence[Mapping[str, Any]], title: str, width: int = WIDTH
) -> Spec:
    """Return `spec` as a picture's: with its rows, a title, a width in pixels, plain colours."""
    spec = json.loads(json.dumps(spec))
    for part in spec["layer"]:
        for channel in (part["encoding"].get("color", {}), part["encoding"].get("shape", {})):
            if "field" in channel and "scale" not in channel:
                # Equal domains make one legend of colour and shape.
                names = dict.fromkeys(row[channel["field"]] for row in rows)
                channel["scale"] = {"domain": list(names)}
    sized = {} if isinstance(spec["width"], dict) else {"width": width}
    full = {**spec, **sized, "data": {"values": list(rows)}, "title": title}
    full["config"] = {**spec["config"], "background": "white"}
    return coloured(full, plain=True)


def vl_convert() -> Any:
    """Return the module that carries Vega; raise ConformanceError where it is not installed."""
    return imported("vl_convert", "the report's charts need vl-convert-python", "report")


def draw(spec: Spec, path: Path, where: str) -> None:
    """Write the picture of a specification with rows as PNG.

    where: the option or file, for a message. Raises ConformanceError without the extra "report",
    or where `path` can't be written.
    """
    picture = vl_convert().vegalite_to_png(spec, scale=2)
    with os_errors(f"{where}: can't be written"):
        path.write_bytes(picture)
