"""Reading the data files of the verdict: TOML, checked keys, version specifiers."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from .errors import ConformanceError, naming
from .models import get_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = Mapping[str, Any]


SCHEMA = 1


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of the TOML file `path`.

    Raises ConformanceError if it can't be read or its ``schema`` is not the one known here.
    """
    data = parse_toml(path)
    if data.get("schema") != SCHEMA:
        raise ConformanceError(
            f"{path}: schema = {data.get('schema')!r}, but this version reads schema = {SCHEMA}"
        )
    return data


def parse_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; raise ConformanceError if it can't be read or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConformanceError(f"{path}: can't be read ({error}); give a TOML file") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter: nested too deeply
        raise ConformanceError(f"{path}: not valid TOML: {error}") from error


def check_keys(where: str, table: Table, known: Iterable[str], required: Iterable[str]) -> None:
    """Raise ConformanceError, naming `where`, on an unknown or a missing key of `table`."""
    known = tuple(known)
    unknown = [key for key in table if key not in known]
    if unknown:
        raise ConformanceError(f"{where}: unknown key {unknown[0]!r}{nearest(unknown[0], known)}")
    missing = [key for key in required if table.get(key) in (None, "", [])]
    if missing:
        raise ConformanceError(f"{where}: {missing[0]!r} is missing or empty")


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a message on an unknown `name`: the nearest known one, and all of them."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} known are {', '.join(known)}"


def check_model(where: str, name: str) -> None:
    """Raise ConformanceError, naming `where` and the nearest match, if there is no model `name`."""
    with naming(where):
        get_model(name)


def text(where: str, table: Table, key: str) -> Optional[str]:
    """Return the string `table[key]`, None if absent; raise ConformanceError if not a string."""
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise ConformanceError(f"{where}: {key!r} must be a string, not {value!r}")
    return value


def texts(where: str, table: Table, key: str) -> tuple[str, ...]:
    """Return `table[key]`, a string or a list of them, as a tuple; empty if absent."""
    value = table.get(key, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise ConformanceError(f"{where}: {key!r} must be a string or a list of them")
    return tuple(values)


def specifier(where: str, table: Table, key: str) -> SpecifierSet:
    """Return the version specifier `table[key]`, such as ``>=4.13,<5``; one for all if absent."""
    value = text(where, table, key) or ""
    try:
        return SpecifierSet(value)
    except InvalidSpecifier as error:
        raise ConformanceError(
            f"{where}: {key} = {value!r} is no version specifier; write for example '>=4.13,<5'"
        ) from error


def toml_entry(name: str, fields: Table) -> str:
    """Return ``[[name]]`` with fields that are strings or lists of them, empty ones left out."""
    # A JSON string is a TOML basic string, but for DEL, which JSON leaves as it is.
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007F")
        for key, value in fields.items()
        if value
    ]
    return "\n".join([f"[[{name}]]", *lines, ""])


def release(version: str) -> Version:
    """Return major.minor.micro of `version`, as ``cv2.__version__`` or a wheel gives it.

    ``4.13.0-dev``, ``5.0.0-alpha`` and the wheel's ``4.13.0.90`` count as 4.13.0, 5.0.0 and 4.13.0.
    PEP 440 would sort ``-dev`` before the release, where OpenCV uses it for the state after it.
    """
    found = re.match(r"\d+(\.\d+){0,2}", version.strip())
    if not found:
        raise ConformanceError(f"version {version!r}: expected one such as 4.13.0")
    return Version(found.group())


def holds(specifiers: SpecifierSet, version: str) -> bool:
    """Return whether `version` is inside `specifiers`; an empty set holds for every version."""
    return specifiers.contains(release(version))
