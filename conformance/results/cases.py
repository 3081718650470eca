"""Results on disk: JSON Lines with a header, a line a case, a line a candidate run, and a footer.

A line of kind "layers" holds what each node of a model's graph strayed, where that was recorded.

The schema is results.schema.json; every line is checked against it when written and when read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Callable, Optional

import fastjsonschema
import filelock

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError

SCHEMA = 1
Line = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """A complete results file. cases, runs, layers: the lines of these kinds, in file order."""

    path: Path
    header: Line
    cases: list[Line]
    runs: list[Line]
    layers: list[Line]
    counts: dict[str, int]

    @property
    def name(self) -> str:
        """OpenCV version, importer if it is not the usual one, and engine, as the file is named."""
        header = self.header
        return f"{header['opencv']['version']}-{variant_of(header)}"


def variant_of(header: Line) -> str:
    """Return the engine, after the importer unless that is the usual one (RunConfig.variant)."""
    return RunConfig(importer=header["importer"], engine=header["engine"]).variant


@lru_cache(maxsize=1)
def _validate() -> Callable[[Line], Line]:
    schema = Path(__file__).with_name("results.schema.json")
    compiled: Callable[[Line], Line] = fastjsonschema.compile(json.loads(schema.read_text()))
    return compiled


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def json_number(value: Optional[float]) -> Any:
    """Return `value` as JSON can hold it: numbers that are not finite become strings."""
    return value if value is None or math.isfinite(value) else str(value)


@dataclass
class ResultsWriter:
    """An open results file; made by `writing`."""

    file: IO[str]
    digest: Any = field(default_factory=hashlib.sha256)
    counts: Counter[str] = field(default_factory=Counter)

    def write(self, line: Line) -> None:
        """Append one line; raise ValueError where it does not fit the schema."""
        try:
            _validate()(line)
        except fastjsonschema.JsonSchemaValueException as error:
            raise ValueError(f"not a line of schema {SCHEMA}: {error.message}: {line}") from error
        if line["kind"] == "case":
            self.counts[line["outcome"]] += 1
        text = json.dumps(line, sort_keys=True) + "\n"
        self.digest.update(text.encode())
        self.file.write(text)
        self.file.flush()


@contextmanager
def writing(path: Path, header: Line) -> Iterator[ResultsWriter]:
    """Give a writer whose file has the header, and gets its footer when the block ends well.

    A block left by an exception leaves a file without footer, which nothing accepts as evidence.
    Raises ConformanceError when another run is writing the same file, or it can't be written.
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        file = path.open("w", encoding="utf-8", newline="\n")
    except filelock.Timeout:
        raise ConformanceError(
            f"{path}: another run is writing this results file; wait for it or give --results "
            f"another folder"
        ) from None
    except OSError as error:
        lock.release()
        raise ConformanceError(f"{path}: can't be written ({error.strerror})") from error
    with file:
        try:
            writer = ResultsWriter(file)
            writer.write({"kind": "header", "schema": SCHEMA, "created": now(), **header})
            yield writer
            digest = writer.digest.hexdigest()
            counts = dict(writer.counts)
            writer.write({"kind": "footer", "counts": counts, "finished": now(), "digest": digest})
        finally:
            lock.release()


def read_results(path: Path) -> Results:
    """Return the results in `path`, every line checked.

    Raises ConformanceError naming the line: not JSON, not of the schema, of a newer schema,
    edited (digest or counts differ), or incomplete (no footer).
    """
    try:
        raw = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConformanceError(f"{path}: can't be read ({error.strerror})") from error
    lines = [_parse(path, number, text) for number, text in enumerate(raw, 1)]
    if not lines or lines[0]["kind"] != "header":
        raise ConformanceError(f"{path}:1: no header, so this is not a results file of the suite")
    if lines[-1]["kind"] != "footer":
        raise ConformanceError(
            f"{path}: no footer, so the run that wrote it did not end; run it again"
        )
    _check_footer(path, raw, lines)
    cases, runs, layers = (
        [line for line in lines if line["kind"] == kind] for kind in ("case", "run", "layers")
    )
    return Results(path, lines[0], cases, runs, layers, lines[-1]["counts"])


def _parse(path: Path, number: int, text: bytes) -> Line:
    where = f"{path}:{number}"
    try:
        line = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ConformanceError(f"{where}: not JSON, truncated or edited ({error})") from error
    schema = line.get("schema", SCHEMA) if isinstance(line, dict) else SCHEMA
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConformanceError(
            f"{where}: schema {schema}, but this version reads up to {SCHEMA}; upgrade "
            f"opencv-dnn-conformance"
        )
    try:
        return _validate()(line)
    except fastjsonschema.JsonSchemaValueException as error:
        raise ConformanceError(
            f"{where}: not a line of schema {SCHEMA}: {error.message}"
        ) from error


def _refuse_constant(name: str) -> None:
    # Python reads and writes NaN and Infinity, JSON and so the report's page do not have them.
    raise ValueError(f"{name} must be written as a string")


def _check_footer(path: Path, raw: list[bytes], lines: list[Line]) -> None:
    digest = hashlib.sha256(b"".join(raw[:-1])).hexdigest()
    if digest != lines[-1]["digest"]:
        raise ConformanceError(
            f"{path}: its lines differ from the digest in its footer: the file was edited; run it "
            f"again"
        )


def results_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, each folder's own for a folder; raise ConformanceError for an empty one."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise ConformanceError(f"{path}: no results file (*.jsonl) in this folder")
        files += found
    return files
