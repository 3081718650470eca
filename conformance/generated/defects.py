"""Known defects of OpenCV, as data: fixtures/known_defects.toml."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from packaging.specifiers import SpecifierSet

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.tables import Table, check_keys, holds, read_toml, specifier, text, texts

from .outcomes import AT_ONCE, SINGLE, SYMPTOMS, Outcome
from .patterns import EVERY, Pattern, Shown, has, parse_pattern

_KEYS = (
    *("name", "importer", "engine", "target", "cpu_disabled", "opencv", "run", "symptom"),
    *("pattern", "says", "reason", "link", "instead"),
)
_REQUIRED = ("name", "importer", "symptom", "pattern", "reason")


@dataclass(frozen=True)
class Defect:
    """One entry."""

    where: str  # the file and the entry's number, for messages
    name: str
    importers: tuple[str, ...]
    engine: Optional[str]  # None: any, as of targets
    target: Optional[str]
    cpu_disabled: tuple[str, ...]  # it shows where these CPU features, or more, are switched off
    opencv: SpecifierSet
    run: Optional[str]  # SINGLE or AT_ONCE; None: both
    symptoms: tuple[str, ...]
    patterns: tuple[Pattern, ...]  # a model that has one of them meets the defect
    says: tuple[str, ...]  # one of them is in OpenCV's reason; empty: whatever it says
    reason: str
    link: str
    instead: str  # what avoids it

    def concerns(self, config: RunConfig, version: str, run: str) -> bool:
        """Return whether it is about networks read and run so, by this version."""
        return (
            config.importer in self.importers
            and self.engine in (None, config.engine)
            and self.target in (None, config.target)
            and set(self.cpu_disabled) <= set(config.cpu_off)
            and holds(self.opencv, version)
            and self.run in (None, run)
        )

    def covers(self, config: RunConfig, version: str, run: str, symptom: str) -> bool:
        """Return whether it is about such networks, and this is how it shows."""
        return self.concerns(config, version, run) and symptom in self.symptoms

    def explains(self, operations: Collection[str], message: str) -> bool:
        """Return whether it may be why a model fails of which only the file is known.

        operations: of the file, or () where they are not known. message: of the failure.
        """
        named = any(
            pattern.file in operations or re.search(rf"\b{pattern.file}\b", message)
            for pattern in self.patterns
            if pattern.file
        )
        of_layers = any(pattern.tokens for pattern in self.patterns)  # which a file does not tell
        if not self.says:
            return named or self.of_any_model
        said = any(text in message for text in self.says)
        return said and (named or self.of_any_model or of_layers)

    @property
    def of_any_model(self) -> bool:
        """Whether every model meets it."""
        return EVERY in self.patterns

    def __str__(self) -> str:
        where = f"OpenCV {self.opencv or 'of any version'}, {self.engine or 'any'} engine"
        where += f", target {self.target}" if self.target else ""
        where += f", without {', '.join(self.cpu_disabled)}" if self.cpu_disabled else ""
        instead = f"; what avoids it: {self.instead}" if self.instead else ""
        return f"{self.name} ({where}): {self.reason}{instead} {self.link}".rstrip()

    def describes(self, shown: Shown, detail: str) -> bool:
        """Return whether a model that fails, with OpenCV's reason, is as it says."""
        said = not self.says or any(text in detail for text in self.says)
        return said and any(has(shown, pattern) for pattern in self.patterns)


def load_defects(path: Optional[Path] = None) -> tuple[Defect, ...]:
    """Read a file of ``[[defect]]`` tables, by default the committed one.

    Raises ConformanceError naming the file and the entry for an unknown key, symptom, operation or
    attribute, an invalid specifier, or a name that is given twice.
    """
    path = path or fixture_path("known_defects.toml")
    data = read_toml(path)
    check_keys(str(path), data, ("schema", "defect"), ())
    found: dict[str, Defect] = {}
    for number, table in enumerate(data.get("defect", []), 1):
        defect = _defect(f"{path} [[defect]] {number}", table)
        if defect.name in found:
            raise ConformanceError(f"{defect.where}: there is a defect {defect.name!r} already")
        found[defect.name] = defect
    return tuple(found.values())


def _defect(where: str, table: Table) -> Defect:
    check_keys(where, table, _KEYS, _REQUIRED)
    symptoms, run = texts(where, table, "symptom"), text(where, table, "run")
    if run not in (None, SINGLE, AT_ONCE):
        raise ConformanceError(f"{where}: run = {run!r}; use {SINGLE!r} or {AT_ONCE!r}")
    for symptom in symptoms:
        if symptom not in SYMPTOMS[:-1]:
            raise ConformanceError(
                f"{where}: unknown symptom {symptom!r}; use one of {', '.join(SYMPTOMS[:-1])}"
            )
    return Defect(
        where=where,
        name=text(where, table, "name") or "",
        importers=texts(where, table, "importer"),
        engine=text(where, table, "engine"),
        target=text(where, table, "target"),
        cpu_disabled=texts(where, table, "cpu_disabled"),
        opencv=specifier(where, table, "opencv"),
        run=run,
        symptoms=symptoms,
        patterns=tuple(parse_pattern(where, one) for one in texts(where, table, "pattern")),
        says=texts(where, table, "says") if "says" in table else (),
        reason=text(where, table, "reason") or "",
        link=text(where, table, "link") or "",
        instead=text(where, table, "instead") or "",
    )


def described(
    defects: Sequence[Defect],
    shown: Shown,
    config: RunConfig,
    version: str,
    outcome: Outcome,
) -> list[Defect]:
    """Return the known defects that an outcome may be of; the first one is its reason."""
    return [
        defect
        for defect in defects
        if defect.covers(config, version, outcome.run, outcome.symptom)
        and defect.describes(shown, outcome.detail)
    ]
