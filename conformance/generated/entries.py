"""New findings as entries for fixtures/known_defects.toml, ready to be read, mended and pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from conformance.tables import release

from .findings import Finding


@dataclass(frozen=True)
class _Entry:
    """What entries are merged by."""

    pattern: str
    symptom: str
    versions: str


def ready_entries(found: Iterable[Finding], judged: Sequence[str]) -> Iterator[str]:
    """Yield a TOML table for each cause that is not known, one for all importers it is the same in.

    judged: the versions that were run, which tell where a row of bad ones ends.
    """
    rows: dict[_Entry, list[Finding]] = {}
    for finding in found:
        if finding.known is None and finding.symptom != "converter":
            for versions in _ranges(finding.bad, judged):
                entry = _Entry(finding.pattern, finding.symptom, versions)
                rows.setdefault(entry, []).append(finding)
    for number, (entry, findings) in enumerate(rows.items(), 1):
        yield _table(number, entry, findings)


def _table(number: int, entry: _Entry, findings: Sequence[Finding]) -> str:
    importers = list(dict.fromkeys(finding.importer for finding in findings))
    engines = {engine for finding in findings for engine in finding.engine.split(", ")}
    first = findings[0]
    operations = ", ".join(first.operations)
    reason = (
        first.detail
        or f"strays by {float(first.deviation or 0):.2g}, allowed {first.allowed or 0:.2g}"
    )
    fields = {
        "name": f"{_slug(entry.pattern)}-{entry.symptom}-{number}",
        "importer": importers,
        "engine": engines.pop() if len(engines) == 1 else "",
        "opencv": entry.versions,
        "symptom": entry.symptom,
        "pattern": entry.pattern,
        "reason": f"{operations}: {' '.join(reason.split())}"[:240],
    }
    lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in fields.items() if v]
    return "\n".join(["[[defect]]", *lines, ""])


def _slug(pattern: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", pattern).strip("-").lower() or "any"


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
