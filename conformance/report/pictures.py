"""The report's charts as PNG files, drawn from the same specifications as the page's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from conformance.charts import Spec, draw, with_rows
from conformance.errors import os_errors

from .charts import CHARTS
from .content import Report


def write_pictures(report: Report, folder: Path) -> list[Path]:
    """Write the charts as pictures into `folder` and return their paths.

    Raises ConformanceError where the extra "report" is missing or `folder` can't be written.
    """
    with os_errors(f"--png {folder}: can't be written"):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, spec in pictures(report):
        written.append(folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}.png")
        draw(spec, written[-1], f"--png {folder}")
    return written


def pictures(report: Report) -> Iterator[tuple[str, Spec]]:
    """Give each picture's name and specification."""
    for chart in CHARTS.values():
        panels = list(chart.panels(report))
        several = len({of.get("group") for of, _ in panels}) > 1
        for of, rows in panels:
            name = chart.file.format(**of, others=f"-{of['group']}" if several else "")
            yield name, with_rows(chart.spec, rows, chart.title.format(**of))
