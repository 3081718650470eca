"""An evaluation's results, read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

import fastjsonschema

from conformance.errors import ConformanceError

SCHEMA = 1


Line = dict[str, Any]


@dataclass(frozen=True)
class Accuracies:
    """A complete results file: its header and summary, bad images and disagreements."""

    path: Path
    header: Line
    summary: Line
    bad: list[Line]
    disagreements: list[Line]


@lru_cache(maxsize=1)
def _validate() -> Callable[[Line], Line]:
    schema = Path(__file__).with_name("imagenet.schema.json").read_text(encoding="utf-8")
    compiled: Callable[[Line], Line] = fastjsonschema.compile(json.loads(schema))
    return compiled


def read_results(path: Path) -> Accuracies:
    """Return the results in `path`.

    Raises ConformanceError naming the line: not JSON, not of the schema, edited, incomplete.
    """
    try:
        raw = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConformanceError(f"{path}: can't be read ({error.strerror})") from error
    lines = [_parse(path, number, text) for number, text in enumerate(raw, 1)]
    kinds = [line["kind"] for line in lines]
    if kinds[:2] != ["header", "summary"] or kinds[-1] != "footer":
        raise ConformanceError(f"{path}: no complete results of an evaluation; run it again")
    if hashlib.sha256(b"".join(raw[:-1])).hexdigest() != lines[-1]["digest"]:
        raise ConformanceError(f"{path}: differs from the digest in its footer; run it again")
    bad, apart = ([x for x in lines if x["kind"] == kind] for kind in ("bad", "disagreement"))
    return Accuracies(path, lines[0], lines[1], bad, apart)


def _parse(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text)
        if isinstance(line, dict) and line.get("schema", SCHEMA) > SCHEMA:
            raise ValueError(f"schema {line['schema']}; upgrade opencv-dnn-conformance")
        return _validate()(line)
    except (ValueError, TypeError, fastjsonschema.JsonSchemaValueException) as error:
        raise ConformanceError(
            f"{path}:{number}: not a line of an evaluation's results ({error})"
        ) from error


def read_all(paths: Iterable[Path]) -> list[Accuracies]:
    """Return the results in the files, by model and OpenCV version as the files are named."""
    return [read_results(path) for path in sorted(paths)]
