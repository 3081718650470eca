"""From the outcomes of any number of OpenCV versions to distinct findings, one for each cause."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from conformance.tables import release

from .defects import Defect, known_defect
from .outcomes import RIGHT, SILENT, SYMPTOMS
from .patterns import Pattern, patterns_of
from .recipes import Recipe
from .vocabulary import REGISTRY

Line = dict[str, Any]
# By version and key, the line of one importer and engine.
Observed = dict[str, dict[str, Line]]


@dataclass(frozen=True)
class Finding:
    """One cause, as far as the models tell causes apart."""

    id: str  # of importer, engine, symptom and pattern: the same in every run
    symptom: str
    importer: str
    engine: str
    bad: list[str]  # versions on which every model that has the pattern fails
    good: list[str]  # versions on which all of them are right
    operations: list[str]  # of the file of the plainest model, those of the pattern's layers
    layers: list[str]  # the same layers in Keras' words
    input: list[Optional[int]]  # of that model, NHWC
    deviation: Optional[float]  # the greatest
    allowed: Optional[float]  # beside it
    cases: list[str]  # keys of the models, the plainest first
    known: Optional[str]  # the entry of the known defects that it is
    reproducer: Optional[str]  # where one was written
    pattern: str
    detail: str  # OpenCV's reason, of the plainest model

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @property
    def silent(self) -> bool:
        """Whether OpenCV says nothing of it."""
        return self.symptom in SILENT


def find(
    observed: Mapping[tuple[str, str], Observed],
    recipes: Mapping[str, Recipe],
    defects: Sequence[Defect] = (),
) -> list[Finding]:
    """Return the findings of each importer and engine, the most harmful first.

    observed: by importer and engine. recipes: by key.
    """
    patterns = {key: patterns_of(recipe) for key, recipe in recipes.items()}
    found: list[Finding] = []
    for (importer, engine), versions in observed.items():
        table = {v: {k: x["symptom"] for k, x in lines.items()} for v, lines in versions.items()}
        for symptom in SYMPTOMS:
            if symptom == RIGHT:
                continue
            for pattern, bad in _causes(symptom, table, patterns).items():
                source = _Source(importer, engine, versions, table, recipes, patterns)
                found.append(_finding(source, symptom, pattern, bad, defects))
    return sorted(found, key=_harm)


def _harm(finding: Finding) -> tuple[Any, ...]:
    """Sort silent before loud, common before rare, long-lived before mended."""
    operations = finding.pattern.replace("->", " ").split()
    common = max((REGISTRY.get(name, 0) for name in operations), default=0)
    symptom = SYMPTOMS.index(finding.symptom)
    return (not finding.silent, -common, -len(finding.cases), symptom, finding.id)


def _causes(
    symptom: str,
    table: Mapping[str, Mapping[str, str]],
    patterns: Mapping[str, Mapping[Pattern, Any]],
) -> dict[Pattern, list[str]]:
    """Return the fewest plain patterns that account for a symptom, with their bad versions.

    A pattern is to blame on a version where no model that has it is right. The plainest ones come
    first, of these the one that accounts for most of what is not accounted for yet.
    """
    failing = {
        (version, key)
        for version, symptoms in table.items()
        for key, found in symptoms.items()
        if found == symptom
    }
    suspects = _suspects(failing, table, patterns)
    chosen: dict[Pattern, list[str]] = {}
    left = set(failing)
    for cost in sorted({pattern.cost for pattern in suspects}):
        rows = {p: places for p, places in suspects.items() if p.cost == cost}
        while rows:
            best = min(rows, key=lambda p: (-len(rows[p] & left), p))
            places = rows.pop(best)
            if not places & left:
                break
            left -= places
            versions = {version for version, _ in places}
            chosen[best] = sorted(versions, key=release)
    return chosen


def _suspects(
    failing: Iterable[tuple[str, str]],
    table: Mapping[str, Mapping[str, str]],
    patterns: Mapping[str, Mapping[Pattern, Any]],
) -> dict[Pattern, set[tuple[str, str]]]:
    innocent = {
        version: {
            pattern
            for key, found in symptoms.items()
            if found == RIGHT
            for pattern in patterns[key]
        }
        for version, symptoms in table.items()
    }
    suspects: dict[Pattern, set[tuple[str, str]]] = {}
    for version, key in failing:
        for pattern in patterns[key]:
            if pattern not in innocent[version]:
                suspects.setdefault(pattern, set()).add((version, key))
    return suspects


@dataclass(frozen=True)
class _Source:
    """Where findings of one importer and engine come from."""

    importer: str
    engine: str
    versions: Observed
    table: Mapping[str, Mapping[str, str]]
    recipes: Mapping[str, Recipe]
    patterns: Mapping[str, Mapping[Pattern, tuple[int, ...]]]


def _finding(
    source: _Source, symptom: str, pattern: Pattern, bad: list[str], defects: Sequence[Defect]
) -> Finding:
    keys = sorted(
        (key for key, found in source.patterns.items() if pattern in found),
        key=lambda key: (len(source.recipes[key].layers), key),
    )
    lines = [
        (source.versions[version][key], key)
        for key in keys
        for version in bad
        if source.table[version].get(key) == symptom
    ]
    line, plainest = lines[0]
    chain = source.patterns[plainest][pattern]
    recipe = source.recipes[plainest]
    worst = max((x for x, _ in lines), key=lambda x: x.get("deviation") or 0.0)
    axes = f"{source.importer}|{source.engine}|{symptom}|{pattern}"
    defect = known_defect(defects, source.importer, source.engine, bad, symptom, pattern)
    height, width, channels = recipe.input
    sides = (None, None) if recipe.any_size else (height, width)
    return Finding(
        id=hashlib.sha256(axes.encode()).hexdigest()[:8],
        symptom=symptom,
        importer=source.importer,
        engine=source.engine,
        bad=bad,
        good=_good(source, keys),
        operations=[operation for operation, layer in line["operations"] if layer in chain],
        layers=[recipe.layers[number - 1].words() for number in chain],
        input=[None, *sides, channels],
        deviation=worst.get("deviation"),
        allowed=worst.get("allowed"),
        cases=list(dict.fromkeys(key for _, key in lines)),
        known=defect.name if defect else None,
        reproducer=None,
        pattern=str(pattern),
        detail=line.get("detail", ""),
    )


def _good(source: _Source, keys: Sequence[str]) -> list[str]:
    """Return the versions on which every model of `keys` that was judged is right."""
    found = []
    for version, symptoms in source.table.items():
        judged = [symptoms[key] for key in keys if key in symptoms]
        if judged and all(symptom == RIGHT for symptom in judged):
            found.append(version)
    return sorted(found, key=release)


def in_words(finding: Finding) -> Iterator[str]:
    """Yield the cells of a finding's row: what, where, since and until when, how often."""
    yield finding.id
    yield finding.symptom
    yield f"{finding.importer}, {finding.engine}"
    yield finding.pattern
    yield ", ".join(finding.operations) or "-"
    yield versions_text(finding.bad)
    yield versions_text(finding.good)
    yield str(len(finding.cases))
    yield finding.known or "NEW"


def versions_text(versions: Sequence[str]) -> str:
    """Return versions in words: all where there are few, else the first and the last."""
    if len(versions) <= 3:
        return ", ".join(versions) or "-"
    return f"{versions[0]} … {versions[-1]} ({len(versions)})"
