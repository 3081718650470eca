"""Known failures: data from fixtures/known_failures.toml, matched against the cases of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Optional

from packaging.specifiers import SpecifierSet

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.tables import (
    Table,
    check_keys,
    check_model,
    holds,
    nearest,
    read_toml,
    release,
    specifier,
    text,
    texts,
    toml_entry,
)

# A case that gets no further than one of these fails in all that come after it.
CHAIN = ("start", "parse", "setup", "forward")
# These need no forward of the candidate's; the other stages, after the chain, do.
APART = ("freeze", "convert", "preprocessing")
STAGES = (
    *APART,
    *CHAIN,
    "output",
    "agreement",
    "batch",
    "repeat",
    "logits",
    "layers",
    "time",
    "accuracy",
)

# Compared as they are; an entry that leaves one out holds for every value of it.
_AXES = ("importer", "engine", "backend", "target", "graph", "keras", "switches")
_SPECIFIERS = ("opencv", "python", "numpy")
_KEYS = ("model", *_AXES, "cpu_disabled", *_SPECIFIERS, "stage", "test", "case", "reason", "link")
# What stands for the model of the preprocessing tests that are about no model, but about OpenCV.
NO_MODEL = "blobFromImage"


@dataclass(frozen=True)
class Case:
    """One test of a run."""

    model: str  # NO_MODEL for a test of preprocessing alone
    stage: str
    test: str  # the function's name
    opencv: str  # a version, as python and numpy
    importer: str
    engine: str
    backend: str
    target: str
    graph: str
    keras: str
    python: str
    numpy: str
    # OpenCV's that were set, such as "winograd_off-fusion_on"; "" where all are as the user's.
    switches: str = ""
    cpu_disabled: tuple[str, ...] = ()  # the CPU features that OpenCV was to do without
    parameters: str = ""  # the part of the test's id in brackets


@dataclass(frozen=True)
class KnownFailure:
    """One entry of the file."""

    where: str
    models: tuple[str, ...]
    axes: tuple[tuple[str, str], ...]  # the exact values it asks for
    cpu_disabled: tuple[str, ...]  # holds where these, or more, are switched off
    versions: tuple[tuple[str, SpecifierSet], ...]
    stage: str
    test: Optional[str]  # a glob, as case
    case: Optional[str]
    reason: str
    link: str


def load_known_failures(
    path: Optional[Path] = None, own: Sequence[str] = ()
) -> tuple[KnownFailure, ...]:
    """Read a file of ``[[failure]]`` tables, by default the committed one.

    own: names of the user's models, which the entries may name besides the registry's.

    Raises ConformanceError naming the file and the entry's number for an unknown key, model or
    stage, an invalid specifier, or an entry without model, stage or reason.
    """
    path = path or fixture_path("known_failures.toml")
    data = read_toml(path)
    check_keys(str(path), data, ("schema", "failure"), ())
    entries = data.get("failure", [])
    if not isinstance(entries, list):
        raise ConformanceError(f"{path}: write each entry under [[failure]], not [failure]")
    numbered = enumerate(entries, 1)
    return tuple(_entry(f"{path} [[failure]] {n}", table, own) for n, table in numbered)


def match_known_failure(entries: Iterable[KnownFailure], case: Case) -> Optional[KnownFailure]:
    """Return the first entry that expects `case` to fail, None if none does.

    An entry of stage parse, setup or forward also expects what comes after that stage to fail.
    """
    return next((entry for entry in entries if _matches(entry, case)), None)


def known_reasons(entries: Iterable[KnownFailure], case: Case) -> list[str]:
    """Return the reasons of the entries that are about the case's stage, whatever the test."""
    about = (f"{e.reason} {e.link}".rstrip() for e in entries if _is_about(e, case))
    return list(dict.fromkeys(about))


def ready_entry(case: Case, reason: str, link: str = "") -> str:
    """Return the TOML entry that makes `case` a known failure on this OpenCV version."""
    axes = {name: getattr(case, name) for name in _AXES}
    fields = {
        "model": case.model,
        **axes,
        "cpu_disabled": list(case.cpu_disabled),
        "opencv": f"=={release(case.opencv)}",
        "stage": case.stage,
        "test": case.test,
        "reason": reason,
        "link": link,
    }
    return toml_entry("failure", fields)


def _matches(entry: KnownFailure, case: Case) -> bool:
    return (
        _is_about(entry, case)
        and (entry.test is None or fnmatchcase(case.test, entry.test))
        and (entry.case is None or fnmatchcase(case.parameters, entry.case))
    )


def _is_about(entry: KnownFailure, case: Case) -> bool:
    return (
        case.model in entry.models
        and _reaches(entry.stage, case.stage)
        and all(getattr(case, name) == value for name, value in entry.axes)
        and set(entry.cpu_disabled) <= set(case.cpu_disabled)
        and all(holds(wanted, getattr(case, name)) for name, wanted in entry.versions)
    )


def _reaches(failed: str, stage: str) -> bool:
    """Return whether a failure at `failed` makes `stage` fail too."""
    if failed == stage:
        return True
    if failed not in CHAIN or stage in APART:
        return False
    return stage not in CHAIN or CHAIN.index(stage) > CHAIN.index(failed)


def _entry(where: str, table: Table, own: Sequence[str]) -> KnownFailure:
    alone = table.get("stage") == "preprocessing" and "model" not in table
    check_keys(where, table, _KEYS, ("test" if alone else "model", "stage", "reason"))
    models = (NO_MODEL,) if alone else texts(where, table, "model")
    for name in models:
        if name not in (NO_MODEL, *own):
            check_model(where, name)
    stage = text(where, table, "stage") or ""
    if stage not in STAGES:
        raise ConformanceError(f"{where}: unknown stage {stage!r}{nearest(stage, STAGES)}")
    axes = ((name, text(where, table, name)) for name in _AXES)
    return KnownFailure(
        where=where,
        models=models,
        axes=tuple((name, value) for name, value in axes if value is not None),
        cpu_disabled=texts(where, table, "cpu_disabled"),
        versions=tuple((name, specifier(where, table, name)) for name in _SPECIFIERS),
        stage=stage,
        test=text(where, table, "test"),
        case=text(where, table, "case"),
        reason=text(where, table, "reason") or "",
        link=text(where, table, "link") or "",
    )
