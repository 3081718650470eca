"""From the outcomes of any number of OpenCV versions to distinct findings, one for each cause."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional, Union

from conformance.candidate import RunConfig
from conformance.tables import release

from .defects import Defect
from .outcomes import RIGHT, SILENT, SYMPTOMS, reason_kind
from .patterns import (
    EVERY,
    LONGEST,
    Pattern,
    Shown,
    file_patterns,
    has,
    layer_patterns,
    layers_as,
    own_operations,
)
from .recipes import Recipe, input_of
from .vocabulary import REGISTRY

Line = dict[str, Any]
# By version and key, the line of one way to run OpenCV on one image or several.
Observed = dict[str, dict[str, Line]]
Axes = tuple[RunConfig, str]


@dataclass(frozen=True)
class Finding:
    """One cause, as far as the models tell causes apart."""

    id: str  # of all that tells it from others, and so the same in every run
    symptom: str
    importer: str
    engine: str  # with target and CPU level, as RunConfig.place says it
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

    observed: by what was run. recipes: by key.
    """
    found: list[Finding] = []
    patterns = {key: layer_patterns(Shown(recipe)) for key, recipe in recipes.items()}
    for axes, versions in observed.items():
        source = _source(axes, versions, recipes, patterns)
        left = source.failing()
        for defect in defects:
            some = {place for place in left if source.is_of(defect, place)}
            if some:
                left -= some
                found.append(_finding(source, _plainest(defect, some, source), some, defect))
        for symptom in SYMPTOMS[: SYMPTOMS.index(RIGHT)]:
            places = {place for place in left if source.symptom(place) == symptom}
            causes = _refusals if symptom == "refused" else _causes
            for pattern, some in causes(places, source):
                found.append(_finding(source, pattern, some, None))
    return sorted(found, key=_harm)


Place = tuple[str, str]  # version and key


@dataclass(frozen=True)
class _Source:
    """Where findings of one way to run come from."""

    axes: Axes
    versions: Observed
    shown: Mapping[str, Shown]
    patterns: Mapping[str, Mapping[Pattern, tuple[int, ...]]]

    def line(self, place: Place) -> Line:
        version, key = place
        return self.versions[version][key]

    def symptom(self, place: Place) -> str:
        return str(self.line(place)["symptom"])

    def failing(self) -> set[Place]:
        places = {(version, key) for version, lines in self.versions.items() for key in lines}
        return {place for place in places if self.symptom(place) != RIGHT}

    def is_of(self, defect: Defect, place: Place) -> bool:
        config, run = self.axes
        covers = defect.covers(config, place[0], run, self.symptom(place))
        return covers and defect.describes(self.shown[place[1]], self.line(place).get("detail", ""))

    @cached_property
    def right(self) -> dict[str, Counter[Pattern]]:
        """By version, how many models that are right on it have each pattern."""
        return {
            version: Counter(
                pattern
                for key, line in lines.items()
                if line["symptom"] == RIGHT
                for pattern in self.patterns[key]
            )
            for version, lines in self.versions.items()
        }

    def has(self, key: str, pattern: Pattern) -> bool:
        plain = len(pattern.tokens) <= LONGEST and pattern.cost[1] <= 1
        return pattern in self.patterns[key] if plain else has(self.shown[key], pattern)


def _source(
    axes: Axes,
    versions: Observed,
    recipes: Mapping[str, Recipe],
    of_layers: Mapping[str, Mapping[Pattern, tuple[int, ...]]],
) -> _Source:
    operations = {
        key: tuple(dict.fromkeys(own_operations(line["operations"])))
        for lines in versions.values()
        for key, line in lines.items()
    }
    shown = {key: Shown(recipes[key], own) for key, own in operations.items()}
    patterns = {key: {**of_layers[key], **file_patterns(model)} for key, model in shown.items()}
    return _Source(axes, versions, shown, patterns)


def _plainest(defect: Defect, places: Iterable[Place], source: _Source) -> Pattern:
    """Return the defect's pattern that most of the models have."""
    keys = {key for _, key in places}
    return max(defect.patterns, key=lambda pattern: sum(source.has(key, pattern) for key in keys))


def _harm(finding: Finding) -> tuple[Any, ...]:
    """Sort silent before loud, common before rare, long-lived before mended."""
    operations = finding.pattern.replace("->", " ").split()
    common = max((REGISTRY.get(name, 0) for name in operations), default=0)
    symptom = SYMPTOMS.index(finding.symptom)
    return (not finding.silent, -common, -len(finding.cases), symptom, finding.id)


def _refusals(failing: set[Place], source: _Source) -> Iterator[tuple[Pattern, set[Place]]]:
    """Yield one pattern for each reason that OpenCV gives, with the places where it gives it.

    It is the operation that the reason names; else the one that accounts for most of the places.
    """
    alike: dict[str, set[Place]] = {}
    for place in failing:
        alike.setdefault(reason_kind(source.line(place).get("detail", "")), set()).add(place)
    for _, places in sorted(alike.items()):
        named = [_named(place, source) for place in places]
        common = set.intersection(*named)
        if common:
            yield min(common), places
        else:
            yield _commonest(places, source), places


def _commonest(places: set[Place], source: _Source) -> Pattern:
    """Return what accounts for most of the places, something that no right model has if it can."""
    counts = Counter(p for _, key in places for p in source.patterns[key] if p != EVERY)
    right: Counter[Pattern] = Counter()
    for version in {version for version, _ in places}:
        right.update({pattern: source.right[version][pattern] for pattern in counts})
    return min(counts, key=lambda p: (right[p] > 0, -counts[p], right[p], p.cost, p))


def _named(place: Place, source: _Source) -> set[Pattern]:
    """Return those of the file's operations that OpenCV's reason names as the type to blame."""
    detail = source.line(place).get("detail", "")
    words = re.findall(r"type \"?(\w+)|Node \[(\w+)", detail)
    named = {Pattern(file=word) for pair in words for word in pair if word}
    return named & set(source.patterns[place[1]])


# So many models that fail make a pattern a suspect though a third as many that have it are right.
_MANY = 20


def _causes(failing: set[Place], source: _Source) -> Iterator[tuple[Pattern, set[Place]]]:
    """Yield the fewest plain patterns that account for all places, each with its places.

    A pattern is to blame on a version where no model that has it is right, or few of many. The
    plainest ones come first, of these the one that accounts for most of what is not accounted for.
    """
    suspects: dict[Pattern, set[Place]] = {}
    for version in {version for version, _ in failing}:
        right = source.right[version]
        keys = [key for v, key in failing if v == version]
        counts = Counter(pattern for key in keys for pattern in source.patterns[key])
        for key in keys:
            for pattern in source.patterns[key]:
                if not right[pattern] or counts[pattern] >= max(_MANY, 3 * right[pattern]):
                    suspects.setdefault(pattern, set()).add((version, key))
    left = set(failing)
    for cost in sorted({pattern.cost for pattern in suspects}):
        rows = {p: places for p, places in suspects.items() if p.cost == cost}
        while rows:
            best = min(rows, key=lambda p: (-len(rows[p] & left), p))
            if not rows[best] & left:
                break
            places = rows.pop(best)
            left -= places
            yield best, places


def _finding(
    source: _Source, pattern: Pattern, places: set[Place], defect: Optional[Defect]
) -> Finding:
    config, run = source.axes
    size = {key: len(model.recipe.layers) for key, model in source.shown.items()}
    ordered = sorted(places, key=lambda place: (size[place[1]], place[1], release(place[0])))
    lines = [source.line(place) for place in ordered]
    first, plainest = lines[0], ordered[0][1]
    worst = max(lines, key=lambda line: float(line.get("deviation") or 0.0))
    symptom = min((line["symptom"] for line in lines), key=SYMPTOMS.index)
    shown = source.shown[plainest]
    recipe, chain = shown.recipe, _chain(source, plainest, pattern)
    axes = "|".join([config.importer, config.place, run, symptom, str(pattern)])
    return Finding(
        id=hashlib.sha256(axes.encode()).hexdigest()[:8],
        symptom=symptom,
        importer=config.importer,
        engine=config.place,
        run=run,
        bad=sorted({version for version, _ in places}, key=release),
        good=_good(source, pattern),
        operations=_operations(first, pattern, chain, len(recipe.layers)),
        layers=[shown.layers[number].words() for number in chain],
        input=input_of(recipe),
        deviation=worst.get("deviation"),
        allowed=worst.get("allowed"),
        cases=list(dict.fromkeys(key for _, key in ordered)),
        known=defect.name if defect else None,
        reproducer=None,
        pattern=str(pattern),
        detail=first.get("detail", ""),
    )


def _operations(line: Line, pattern: Pattern, chain: Sequence[int], last: int) -> list[str]:
    """Return the file's operations of the layers to blame, those of the head being numbered 0."""
    if pattern.file:
        return [pattern.file]
    numbers = {number if number <= last else 0 for number in chain}
    return [operation for operation, layer in line["operations"] if layer in numbers]


def _chain(source: _Source, key: str, pattern: Pattern) -> tuple[int, ...]:
    """Return the numbers of a model's layers that are as the pattern asks, all of them for "*"."""
    found = source.patterns[key].get(pattern)
    return found or next(layers_as(source.shown[key], pattern), ())


def _good(source: _Source, pattern: Pattern) -> list[str]:
    """Return the versions on which every judged model that has the pattern is right."""
    keys = [key for key in source.shown if source.has(key, pattern)]
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
