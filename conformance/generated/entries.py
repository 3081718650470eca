"""New findings as entries for fixtures/known_defects.toml, ready to be read, mended and pasted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from conformance.tables import release, toml_entry

from .findings import Finding


def ready_entries(found: Iterable[Finding], judged: Sequence[str]) -> Iterator[str]:
    """Yield a TOML table for each cause that is not known, one for all importers it is the same in.

    judged: the versions that were run, which tell where a row of bad ones ends.
    """
    rows: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in found:
        if finding.known is None and finding.symptom != "converter":
            for versions in _ranges(finding.bad, judged):
                row = finding.pattern, finding.symptom, versions
                rows.setdefault(row, []).append(finding)
    for number, (row, findings) in enumerate(rows.items(), 1):
        yield _table(number, *row, findings)


def _table(
    number: int, pattern: str, symptom: str, versions: str, findings: Sequence[Finding]
) -> str:
    importers = list(dict.fromkeys(finding.importer for finding in findings))
    engines = {engine for finding in findings for engine in finding.engine.split(", ")}
    first = findings[0]
    operations = ", ".join(first.operations)
    reason = (
        first.detail
        or f"strays by {float(first.deviation or 0):.2g}, allowed {first.allowed or 0:.2g}"
    )
    slug = re.sub(r"[^A-Za-z0-9]+", "-", pattern).strip("-").lower() or "any"
    fields = {
        "name": f"{slug}-{symptom}-{number}",
        "importer": importers,
        "engine": engines.pop() if len(engines) == 1 else "",
        "opencv": versions,
        "symptom": symptom,
        "pattern": pattern,
        "reason": f"{operations}: {' '.join(reason.split())}"[:240],
    }
    return toml_entry("defect", fields)


def _ranges(bad: Sequence[str], judged: Sequence[str]) -> Iterator[str]:
    """Yield a version specifier for each row of bad versions among those that were judged."""
    ordered = sorted(set(judged), key=release)
    start = None
    for place, version in enumerate(ordered):
        if version in bad and start is None:
            start = version
        ends = version in bad and (place + 1 == len(ordered) or ordered[place + 1] not in bad)
        if start is not None and ends:
            after = f",<{ordered[place + 1]}" if place + 1 < len(ordered) else ""
            yield f">={start}{after}"
            start = None
