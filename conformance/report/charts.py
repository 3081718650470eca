"""The report's charts as Vega-Lite specifications: the page draws them, and --png pictures them.

A specification names its colours by role; `coloured` puts in CSS variables, so that the page's
light and dark colours apply to a drawn chart too, or plain ones for a picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

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
_SERIES = [f"@series-{number}" for number in range(1, 7)]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]


def coloured(spec: Spec, plain: bool = False) -> Spec:
    """Return `spec` with each "@role" replaced: by a colour if `plain`, else by a CSS variable."""
    text = json.dumps(spec)
    for role, colour in LIGHT.items():
        text = text.replace(f'"@{role}"', json.dumps(colour if plain else f"var(--{role})"))
    result: Spec = json.loads(text)
    return result


def _chart(description: str, height: int, columns: int = 3, **parts: Any) -> Spec:
    axis = {"labelColor": "@muted", "titleColor": "@muted", "gridColor": "@grid"}
    axis |= {"domainColor": "@grid", "tickColor": "@grid", "titleFontWeight": "normal"}
    legend = {"labelColor": "@ink", "titleColor": "@muted", "orient": "top", "columns": columns}
    return {
        "description": description,
        "width": "container",
        "height": height,
        "data": {"name": "rows"},
        "config": {
            "background": None,
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": axis,
            "legend": {**legend, "symbolStrokeWidth": 2, "labelLimit": 260},
            "range": {"category": _SERIES, "symbol": _SHAPES},
            "title": {"color": "@ink"},
        },
        **parts,
    }


def _field(name: str, kind: str, title: Optional[str] = None, **more: Any) -> Spec:
    return {"field": name, "type": kind, "title": title, **more}


_VERSION = _field("version", "ordinal", sort=None, axis={"labelAngle": -60, "grid": False})
_SERIES_COLOUR = _field("series", "nominal", sort=None)


def _tooltip(*fields: tuple[str, str, str]) -> list[Spec]:
    return [
        _field(
            name, "quantitative" if form else "nominal", title, **({"format": form} if form else {})
        )
        for name, title, form in fields
    ]


def _lines(encoding: Spec, size: int = 50) -> list[Spec]:
    """Return a line and its points, whose shape tells what their colour tells."""
    points = {"type": "point", "filled": True, "opacity": 1, "size": size}
    return [
        {"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": encoding},
        {"mark": points, "encoding": {**encoding, "shape": encoding["color"]}},
    ]


def deviation_chart() -> Spec:
    """Deviation and noise floor by version. Rows: version, series, deviation, noise, ratio."""
    tip = _tooltip(
        ("version", "OpenCV", ""),
        ("series", "engine", ""),
        ("deviation", "deviation", ".2e"),
        ("noise", "noise floor", ".2e"),
        ("ratio", "deviation / noise", ".2f"),
    )
    scale = {"type": "log", "nice": False, "padding": 8}
    y = _field("deviation", "quantitative", scale=scale, axis={"format": ".0e", "tickCount": 4})
    shown = {"x": _VERSION, "y": y, "color": _SERIES_COLOUR, "tooltip": tip}
    noise = {
        "mark": {"type": "line", "strokeDash": [5, 4], "color": "@muted", "strokeWidth": 1.5},
        "encoding": {"x": _VERSION, "y": {**y, "field": "noise"}},
    }
    return _chart("deviation from float64 by OpenCV version", 150, layer=[noise, *_lines(shown)])


def version_time_chart() -> Spec:
    """Milliseconds by version. Rows: version, series, ms."""
    tip = _tooltip(("version", "OpenCV", ""), ("series", "engine", ""), ("ms", "ms", ".2f"))
    y = _field("ms", "quantitative", "ms", scale={"zero": True}, axis={"tickCount": 4})
    shown = {"x": _VERSION, "y": y, "color": _SERIES_COLOUR, "tooltip": tip}
    return _chart("inference time by OpenCV version", 150, layer=_lines(shown))


def layer_chart() -> Spec:
    """A model's layers in the graph's order. Rows: place, node, op, observed, noise, allowed."""
    tip = _tooltip(
        ("node", "node", ""),
        ("op", "operation", ""),
        ("observed", "observed", ".2e"),
        ("noise", "noise floor", ".2e"),
        ("allowed", "allowed", ".2e"),
    )
    x = _field("place", "quantitative", "node, in the graph's order", axis={"grid": False})
    y_axis = {
        "scale": {"type": "log", "nice": False, "padding": 8},
        "axis": {"format": ".0e", "tickCount": 6},
    }

    def layer(name: str, label: str, mark: Spec, **more: Any) -> Spec:
        y = _field(name, "quantitative", "root mean square from float64", **y_axis)
        colour = {"datum": label, "type": "nominal"}
        return {"mark": mark, "encoding": {"x": x, "y": y, "color": colour, **more}}

    scale = {
        "domain": ["observed", "noise floor", "allowed"],
        "range": ["@series-1", "@muted", "@failed"],
    }
    layers = [
        layer("allowed", "allowed", {"type": "line", "strokeDash": [2, 3]}),
        layer("noise", "noise floor", {"type": "line", "strokeDash": [6, 4]}),
        layer("observed", "observed", {"type": "point", "filled": True, "size": 26}, tooltip=tip),
    ]
    for one in layers:
        one["encoding"]["color"]["scale"] = scale
        one["encoding"]["color"]["title"] = None
    return _chart("how far each layer strays", 320, layer=layers)


def iteration_chart() -> Spec:
    """The tutorial's chart: time against iteration. Rows: iteration, who, ms."""
    tip = _tooltip(("who", "who", ""), ("iteration", "iteration", "d"), ("ms", "ms", ".2f"))
    whole = {"grid": False, "tickMinStep": 1, "format": "d"}
    shown = {
        "x": _field("iteration", "quantitative", "iteration", axis=whole),
        "y": _field("ms", "quantitative", "ms", scale={"zero": True}),
        "color": _field("who", "nominal", sort=None),
        "tooltip": tip,
    }
    return _chart("inference time of each iteration", 200, columns=1, layer=_lines(shown, size=22))


def median_chart() -> Spec:
    """Median inference time, a bar for each framework. Rows: model, who, ms."""
    tip = _tooltip(("model", "model", ""), ("who", "who", ""), ("ms", "median, ms", ".2f"))
    bars = _field("who", "nominal", sort=None)
    return _chart(
        "median inference time of each framework",
        0,
        columns=1,
        mark={"type": "bar", "cornerRadiusEnd": 2},
        encoding={
            "y": _field("model", "nominal", sort=None),
            "yOffset": bars,
            "x": _field("ms", "quantitative", "median, ms", axis={"tickCount": 8}),
            "color": bars,
            "tooltip": tip,
        },
    ) | {"height": {"step": 14}}


def evaluation_chart() -> Spec:
    """Mean inference time while evaluating, a bar for each framework. Rows: model, who, ms."""
    spec = median_chart()
    spec["description"] = "mean inference time of an image while evaluating on ImageNet"
    spec["encoding"]["x"]["title"] = "mean ms an image"
    spec["encoding"]["tooltip"][-1]["title"] = "mean, ms"
    return spec


def verdict_chart(names: Mapping[str, str]) -> Spec:
    """The matrix as a picture. Rows: model, column, verdict, symbol. names: of the verdicts."""
    place = {
        "x": _field("column", "ordinal", sort=None, axis={"labelAngle": -60, "orient": "top"}),
        "y": _field("model", "nominal", sort=None),
    }
    scale = {
        "domain": list(names.values()),
        "range": [f"@{verdict.replace(' ', '-')}" for verdict in names],
    }
    colour = _field("verdict", "nominal", scale=scale)
    cells = {"mark": {"type": "rect", "stroke": "white"}, "encoding": {**place, "color": colour}}
    text: Spec = {"mark": {"type": "text", "color": "white", "fontWeight": "bold"}}
    text["encoding"] = {**place, "text": {"field": "symbol", "type": "nominal"}}
    spec = _chart("verdicts", 0, layer=[cells, text])
    return spec | {"width": {"step": 30}, "height": {"step": 24}}


def with_rows(spec: Spec, rows: Sequence[Mapping[str, Any]], title: str, width: int) -> Spec:
    """Return `spec` as a picture's: with its rows, a title, a width in pixels, plain colours."""
    spec = json.loads(json.dumps(spec))
    for part in spec.get("layer", [spec]):
        for channel in (part["encoding"].get("color", {}), part["encoding"].get("shape", {})):
            if "field" in channel and "scale" not in channel:
                # Equal domains make one legend of colour and shape.
                channel["scale"] = {
                    "domain": list(dict.fromkeys(r[channel["field"]] for r in rows))
                }
    sized = {} if isinstance(spec["width"], dict) else {"width": width}
    full = {**spec, **sized, "data": {"values": list(rows)}, "title": title}
    full["config"] = {**spec["config"], "background": "white"}
    return coloured(full, plain=True)


PAGE_CHARTS = {
    "deviation": deviation_chart,
    "version_time": version_time_chart,
    "layers": layer_chart,
    "iterations": iteration_chart,
    "medians": median_chart,
    "evaluations": evaluation_chart,
}
