"""The report as one HTML page that needs nothing else: no network, no second file."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional

from conformance.charts import LIGHT, vl_convert
from conformance.errors import imported
from conformance.generated.findings import versions_text
from conformance.results.lines import number

from .charts import CHARTS, Chart
from .content import Data, Report, case_name
from .matrix import NAMES, SYMBOLS
from .operations import verdict_of_symptom
from .payload import payload, shorten
from .sections import SECTIONS, TITLES

_PAGE = Path(__file__).with_name("page")


def render(report: Report) -> str:
    """Return the page; raise ConformanceError where the extra "report" is not installed."""
    jinja2 = imported("jinja2", "the report needs {error.name}", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "heat": heat,
        "moment": moment,
        "test": case_name,
        "shorten": shorten,
        "verdict": verdict_of_symptom,
        "versions": versions_text,
    }
    sections = {name: section(report) for name, section in SECTIONS.items()}
    template = environment.get_template("page.html.j2")
    page: str = template.render(
        report=report,
        matrix=report.matrix,
        sections={name: data for name, data in sections.items() if data is not None},
        titles=TITLES,
        panels={name: _panels(chart, report) for name, chart in CHARTS.items()},
        palette=LIGHT,
        symbols=SYMBOLS,
        names=NAMES,
        style=(_PAGE / "style.css").read_text(encoding="utf-8"),
        script=(_PAGE / "script.js").read_text(encoding="utf-8"),
        library=vega(),
        data=script_json(payload(report)),
    )
    return page


def _panels(chart: Chart, report: Report) -> list[Data]:
    """Return the places that a chart has in the page, each with its caption."""
    caption = chart.caption or ""
    return [
        {"model": None, "group": None, **of, "caption": caption.format(**of)}
        for of, _ in chart.panels(report)
    ]


@lru_cache(maxsize=1)
def vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, for inside a script element."""
    return str(vl_convert().javascript_bundle()).replace("</script", "<\\/script")


def script_json(value: Any) -> str:
    """Return `value` as JSON that can stand inside a script element, whatever text it holds."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def figure(value: object) -> str:
    """Return a recorded figure for people: three digits, or what stands in its place."""
    found = number(value)
    return str(value if value is not None else "-") if found is None else f"{found:.3g}"


def moment(created: str) -> str:
    """Return an ISO 8601 time to the minute, for people."""
    return f"{created[:16].replace('T', ' ')} UTC" if created.endswith("+00:00") else created


def heat(ratio: Optional[float]) -> str:
    """Return how strongly a ratio to the noise is shaded: 0 % up to 1, 100 % from 30 on."""
    if not ratio or ratio <= 1:
        return "0%"
    return f"{min(1.0, math.log(ratio) / math.log(30)):.0%}"
