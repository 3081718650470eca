"""From the outcomes of any number of OpenCV versions to distinct findings, one for each cause."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional, Union

from conformance.tables import release

from .defects import Defect
from .outcomes import RIGHT, SILENT, SYMPTOMS
from .patterns import Pattern, has, layers_as, patterns_of
from .recipes import Recipe
from .vocabulary import REGISTRY

Line = dict[str, Any]
# By version and key, the line of one importer, engine and way to run.
Observed = dict[str, dict[str, Line]]
Axes = tuple[str, str, str]


@dataclass(frozen=True)
class Finding:
    """One cause, as far as the models tell causes apart."""

    id: str  # of all that tells it from others, and so the same in every run
    symptom: str
    importer: str
    engine: str
    run: str  # of single images, or of a batch where single images are right
    bad: list[str]  # versions on which every model that has the pattern fails
    good: list[str]  # versions on which all of them are right
    operations: list[str]  # of the file of the plainest model, those of the pattern's layers
    layers: list[str]  # the same layers in Keras' words
    input: list[Optional[int]]  # of that model, NHWC
    deviation: Union[float, str, None]  # the greatest; "inf" where a value is not finite
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
    observed: Mapping[Axes, Observed],
    recipes: Mapping[str, Recipe],
    defects: Sequence[Defect] = (),
) -> list[Finding]:
    """Return the findings, the most harmful first: each known defect once, then the unknown ones.

    observed: by importer, engine and way to run. recipes: by key.
    """
    patterns = {key: patterns_of(recipe) for key, recipe in recipes.items()}
    found: list[Finding] = []
    for axes, versions in observed.items():
        source = _Source(axes, versions, recipes, patterns)
        left = source.failing()
        for defect in defects:
            some = {place for place in left if source.is_of(defect, place)}
            if some:
                left -= some
                found.append(_finding(source, _plainest(defect, some, source), some, defect))
        for symptom in SYMPTOMS[: SYMPTOMS.index(RIGHT)]:
            places = {place for place in left if source.symptom(place) == symptom}
            for pattern, some in _causes(places, source).items():
                found.append(_finding(source, pattern, some, None))
    return sorted(found, key=_harm)


Place = tuple[str, str]  # version and key


@dataclass(frozen=True)
class _Source:
    """Where findings of one importer, engine and way to run come from."""

    axes: Axes
    versions: Observed
    recipes: Mapping[str, Recipe]
    patterns: Mapping[str, Mapping[Pattern, tuple[int, ...]]]

    def symptom(self, place: Place) -> str:
        version, key = place
        return str(self.versions[version][key]["symptom"])

    def failing(self) -> set[Place]:
        places = {(version, key) for version, lines in self.versions.items() for key in lines}
        return {place for place in places if self.symptom(place) != RIGHT}

    def is_of(self, defect: Defect, place: Place) -> bool:
        importer, engine, _ = self.axes
        return defect.covers(importer, engine, place[0], self.symptom(place)) and any(
            has(self.recipes[place[1]], pattern) for pattern in defect.patterns
        )

    def innocent(self, version: str) -> set[Pattern]:
        """Return the patterns of which some model is right on a version."""
        return {
            pattern
            for key, line in self.versions[version].items()
            if line["symptom"] == RIGHT
            for pattern in self.patterns[key]
        }


def _plainest(defect: Defect, places: Iterable[Place], source: _Source) -> Pattern:
    """Return the defect's pattern that most of the models have."""
    keys = {key for _, key in places}
    return max(
        defect.patterns, key=lambda pattern: sum(has(source.recipes[key], pattern) for key in keys)
    )


def _harm(finding: Finding) -> tuple[Any, ...]:
    """Sort silent before loud, common before rare, long-lived before mended."""
    operations = finding.pattern.replace("->", " ").split()
    common = max((REGISTRY.get(name, 0) for name in operations), default=0)
    symptom = SYMPTOMS.index(finding.symptom)
    return (not finding.silent, -common, -len(finding.cases), symptom, finding.id)


def _causes(failing: set[Place], source: _Source) -> dict[Pattern, set[Place]]:
    """Return the fewest plain patterns that account for all places, each with its places.

    A pattern is to blame on a version where no model that has it is right. The plainest ones come
    first, of these the one that accounts for most of what is not accounted for yet.
    """
    innocent = {version: source.innocent(version) for version in {v for v, _ in failing}}
    suspects: dict[Pattern, set[Place]] = {}
    for version, key in failing:
        for pattern in source.patterns[key]:
            if pattern not in innocent[version]:
                suspects.setdefault(pattern, set()).add((version, key))
    chosen: dict[Pattern, set[Place]] = {}
    left = set(failing)
    for cost in sorted({pattern.cost for pattern in suspects}):
        rows = {p: places for p, places in suspects.items() if p.cost == cost}
        while rows:
            best = min(rows, key=lambda p: (-len(rows[p] & left), p))
            if not rows[best] & left:
                break
            chosen[best] = rows.pop(best)
            left -= chosen[best]
    return chosen


def _finding(
    source: _Source, pattern: Pattern, places: set[Place], defect: Optional[Defect]
) -> Finding:
    importer, engine, run = source.axes
    ordered = sorted(places, key=lambda place: (len(source.recipes[place[1]].layers), place[1]))
    lines = [source.versions[version][key] for version, key in ordered]
    first, plainest = lines[0], ordered[0][1]
    worst = max(lines, key=lambda line: float(line.get("deviation") or 0.0))
    symptom = min((line["symptom"] for line in lines), key=SYMPTOMS.index)
    recipe = source.recipes[plainest]
    chain = _chain(source, plainest, pattern)
    height, width, channels = recipe.input
    sides = (None, None) if recipe.any_size else (height, width)
    axes = "|".join([*source.axes, symptom, str(pattern)])
    return Finding(
        id=hashlib.sha256(axes.encode()).hexdigest()[:8],
        symptom=symptom,
        importer=importer,
        engine=engine,
        run=run,
        bad=sorted({version for version, _ in places}, key=release),
        good=_good(source, pattern),
        operations=[operation for operation, layer in first["operations"] if layer in chain],
        layers=[recipe.layers[number - 1].words() for number in chain],
        input=[None, *sides, channels],
        deviation=worst.get("deviation"),
        allowed=worst.get("allowed"),
        cases=list(dict.fromkeys(key for _, key in ordered)),
        known=defect.name if defect else None,
        reproducer=None,
        pattern=str(pattern),
        detail=first.get("detail", ""),
    )


def _chain(source: _Source, key: str, pattern: Pattern) -> tuple[int, ...]:
    """Return the numbers of a model's layers that are as the pattern asks, all of them for "*"."""
    recipe = source.recipes[key]
    everything = tuple(range(1, len(recipe.layers) + 1))
    found = source.patterns[key].get(pattern)
    return found or next(layers_as(recipe, pattern), everything)


def _good(source: _Source, pattern: Pattern) -> list[str]:
    """Return the versions on which every judged model that has the pattern is right."""
    keys = [key for key, recipe in source.recipes.items() if has(recipe, pattern)]
    found = []
    for version, lines in source.versions.items():
        judged = [lines[key]["symptom"] for key in keys if key in lines]
        if judged and all(symptom == RIGHT for symptom in judged):
            found.append(version)
    return sorted(found, key=release)


def in_words(finding: Finding) -> Iterator[str]:
    """Yield the cells of a finding's row: what, where, since and until when, how often."""
    yield finding.id
    yield finding.symptom
    yield f"{finding.importer}, {finding.engine}, {finding.run}"
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
