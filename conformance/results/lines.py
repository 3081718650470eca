"""The store of results: JSON Lines, each checked against a schema when written and when read.

A header, lines, and a footer with the SHA-256 of all before it: a file without one, or another
digest, is no evidence.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, Callable, Optional

import fastjsonschema

from conformance.errors import ConformanceError, os_errors
from conformance.pack.sealed import now, parse_json

SCHEMA = 1
Line = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A kind of results file."""

    title: str  # as errors name it
    schema: str  # of a line, a file beside this module

    def check(self, line: Any) -> Line:
        """Return the line; raise ValueError for a newer schema, and where it does not fit."""
        schema = line.get("schema", SCHEMA) if isinstance(line, dict) else SCHEMA
        if isinstance(schema, int) and schema > SCHEMA:
            raise ValueError(
                f"schema {schema}, but this version reads up to {SCHEMA}; upgrade "
                f"opencv-dnn-conformance"
            )
        try:
            return _compiled(self.schema)(line)
        except fastjsonschema.JsonSchemaValueException as error:
            raise ValueError(f"not a line of {self.title}, schema {SCHEMA}: {error}") from error


CASES = Format("a results file of the suite", "results.schema.json")
EVALUATIONS = Format("an evaluation's results", "imagenet.schema.json")


@cache
def _compiled(schema: str) -> Callable[[Line], Line]:
    text = Path(__file__).with_name(schema).read_text(encoding="utf-8")
    compiled: Callable[[Line], Line] = fastjsonschema.compile(json.loads(text))
    return compiled


def number(value: object) -> Optional[float]:
    """Return a recorded number, None where it is missing or not finite (recorded as a string)."""
    return float(value) if isinstance(value, (int, float)) else None


def line_text(line: Line) -> str:
    """Return the text of one line, its end included."""
    return json.dumps(line, sort_keys=True) + "\n"


@dataclass
class Writer:
    """An open file of a format, to which lines are added."""

    file: IO[str]
    format: Format
    digest: Any = field(default_factory=hashlib.sha256)
    counts: Counter[str] = field(default_factory=Counter)  # of the lines' outcomes

    def write(self, line: Line) -> None:
        """Append one line; raise ValueError where it does not fit the schema."""
        try:
            text = line_text(self.format.check(line))
        except ValueError as error:
            raise ValueError(f"{error}: {line}") from error
        self.digest.update(text.encode())
        self.file.write(text)
        self.file.flush()
        if "outcome" in line:
            self.counts[line["outcome"]] += 1


@contextmanager
def writing_lines(path: Path, format: Format, header: Line) -> Iterator[Writer]:
    """Give a writer whose file has the header, and gets its footer when the block ends well."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        writer = Writer(file, format)
        writer.write({"kind": "header", "schema": SCHEMA, "created": now(), **header})
        yield writer
        found = {"counts": dict(writer.counts), "digest": writer.digest.hexdigest()}
        writer.write({"kind": "footer", "finished": now(), **found})


def read_lines(path: Path, format: Format) -> list[Line]:
    """Return header, lines and footer of a file, every line checked.

    Raises ConformanceError naming the line: not JSON, not of the schema, of a newer schema,
    edited (the digest differs), or incomplete (no footer).
    """
    lines, texts = [], []
    for where, text, value in parsed(path):
        try:
            lines.append(format.check(value))
        except ValueError as error:
            raise ConformanceError(f"{where}: {error}") from error
        texts.append(text)
    if not lines or lines[0]["kind"] != "header":
        raise ConformanceError(f"{path}:1: no header, so this is not {format.title}")
    if lines[-1]["kind"] != "footer":
        raise ConformanceError(
            f"{path}: no footer, so these are no complete results: the run that wrote them did not "
            f"end; run it again"
        )
    if hashlib.sha256(b"".join(texts[:-1])).hexdigest() != lines[-1]["digest"]:
        raise ConformanceError(
            f"{path}: differs from the digest in its footer: the file was edited; run it again"
        )
    return lines


def parsed(path: Path) -> Iterator[tuple[str, bytes, Any]]:
    """Yield place ("FILE:number"), text and value of each line; raise ConformanceError if none."""
    with os_errors(f"{path}: can't be read"):
        texts = path.read_bytes().splitlines(keepends=True)
    for number, text in enumerate(texts, 1):
        where = f"{path}:{number}"
        try:
            value = parse_json(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise ConformanceError(f"{where}: not JSON, truncated or edited ({error})") from error
        yield where, text, value


def _refuse_constant(name: str) -> None:
    # Python reads and writes NaN and Infinity, JSON and so the report's page do not have them.
    raise ValueError(f"{name} must be written as a string")
