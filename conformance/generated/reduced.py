"""Findings that were shrunk: which are one, and findings.json, which tells a later run of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Optional

from conformance.errors import ConformanceError
from conformance.pack.sealed import parse_json
from conformance.tables import release

from .findings import Finding
from .recipes import Recipe

FILE = "findings.json"
SCHEMA = 1


@dataclass(frozen=True)
class Reduced:
    """One or more findings that shrank to the same sequence of layers, and their folder."""

    ids: list[str]
    same: str  # what they have in common: importer, symptom, run, layers
    folder: str  # its name in the folder of findings.json
    opencv: list[str]  # versions that showed it while it was shrunk
    layers: list[str]  # in Keras' words
    operations: list[str]  # of the file, those of stem and head left out
    input: list[Optional[int]]  # NHWC
    recipe: dict[str, Any]


def sequence(recipe: Recipe) -> str:
    """Return the layers of a recipe without any shapes, in words: what makes two findings one."""
    words = []
    for number, layer in enumerate(recipe.layers):
        plain = set(layer.inputs) == {number}
        wiring = "" if plain else f" of {', '.join(map(str, layer.inputs))}"
        words.append(layer.words() + wiring)
    return " -> ".join(words) or "stem and head alone"


def combined(older: Iterable[Reduced], newer: Iterable[Reduced]) -> list[Reduced]:
    """Return all of both, one for each sequence; a finding is the newer's where both have it."""
    found = {one.same: one for one in newer}
    taken = {name for one in found.values() for name in one.ids}
    for one in older:
        ids = [name for name in one.ids if name not in taken]
        if one.same in found:
            now = found[one.same]
            versions = sorted({*now.opencv, *one.opencv}, key=release)
            found[one.same] = replace(now, ids=[*now.ids, *ids], opencv=versions)
        elif ids:
            found[one.same] = replace(one, ids=ids)
    return list(found.values())


def attached(findings: Sequence[Finding], reduced: Iterable[Reduced], root: Path) -> list[Finding]:
    """Return the findings with what they were shrunk to, those that are one merged into the first.

    root: the folder of the folders.
    """
    group = {name: one for one in reduced for name in one.ids}
    members: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.id in group:
            members.setdefault(group[finding.id].same, []).append(finding)
    found = []
    for finding in findings:
        if finding.id not in group:
            found.append(finding)
        elif members[group[finding.id].same][0] is finding:
            one = group[finding.id]
            found.append(_merged(members[one.same], one, str(root / one.folder)))
    return found


def versions_of(findings: Sequence[Finding]) -> tuple[list[str], list[str]]:
    """Return the versions that some of the findings are in, and those that some are not in."""
    bad = {version for finding in findings for version in finding.bad}
    good = {version for finding in findings for version in finding.good} - bad
    return sorted(bad, key=release), sorted(good, key=release)


def _merged(some: Sequence[Finding], one: Reduced, folder: str) -> Finding:
    first, (bad, good) = some[0], versions_of(some)
    worst = max(some, key=lambda finding: float(finding.deviation or 0))
    return replace(
        first,
        engine=", ".join(sorted({finding.engine for finding in some})),
        bad=bad,
        good=good,
        operations=one.operations,
        layers=one.layers,
        input=one.input,
        deviation=worst.deviation,
        allowed=worst.allowed,
        cases=list(dict.fromkeys(case for finding in some for case in finding.cases)),
        known=next((finding.known for finding in some if finding.known), None),
        reproducer=folder,
    )


def write_reduced(root: Path, reduced: Sequence[Reduced], findings: Sequence[Finding]) -> None:
    """Write findings.json: what was shrunk, and all findings as they were then."""
    values = {
        "schema": SCHEMA,
        "reduced": [asdict(one) for one in reduced],
        "findings": [asdict(finding) for finding in findings],
    }
    (root / FILE).write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")


def read_reduced(root: Path) -> list[Reduced]:
    """Return what findings.json in `root` says was shrunk, of folders that are there.

    Raises ConformanceError where there is no such file, or one that nobody here wrote.
    """
    path = root / FILE
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        if values["schema"] > SCHEMA:
            raise ConformanceError(
                f"{path}: of schema {values['schema']}, this version reads up to {SCHEMA}: use the "
                "version of opencv-dnn-conformance that wrote it, or a later one"
            )
        known = [field.name for field in fields(Reduced)]
        found = [Reduced(**{name: one[name] for name in known}) for one in values["reduced"]]
    except OSError as error:
        raise ConformanceError(
            f"{path}: can't be read ({error.strerror}); python -m conformance findings RESULTS… "
            f"--reduce {root} writes it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConformanceError(f"{path}: not what findings --reduce writes ({error!r})") from error
    return [one for one in found if (root / one.folder).is_dir()]
