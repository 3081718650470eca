"""Files that are whole or not there at all, and folders sealed by a manifest of hashes."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Optional, Union

from conformance.errors import ConformanceError
from conformance.processes.scratch import locked

TEMPORARY = ".tmp-"
_CHUNK = 1 << 20
# Quotas and file size limits stop a writer as a full disk does.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Kind:
    """A kind of sealed folder."""

    noun: str  # as errors name it
    file: str  # the manifest's name
    manifest: type[Any]  # a dataclass; its "files" are {name: {"sha256", "bytes"}}
    schema: int  # the newest that is read
    command: Callable[[Path], str]  # makes the folder anew

    def damaged(self, file: Path, what: str) -> ConformanceError:
        """Return the error that names a damaged file of such a folder and the remedy."""
        return ConformanceError(
            f"{file}: {what}. The {self.noun} is damaged; make it again: "
            f"{self.command(file.parent)}"
        )


def read_manifest(kind: Kind, folder: Path) -> Any:
    """Return a folder's manifest, its other files unchecked.

    Raises ConformanceError for a missing or damaged one and for a newer schema.
    """
    file = folder / kind.file
    try:
        data = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise kind.damaged(file, f"no such file, so this folder is not a {kind.noun}") from None
    except (OSError, ValueError) as error:
        raise kind.damaged(file, f"cannot be read as JSON ({error})") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int):
        raise kind.damaged(file, "has no schema number")
    if schema > kind.schema:
        raise ConformanceError(
            f"{file}: written in schema {schema}, but this version of opencv-dnn-conformance "
            f"reads up to schema {kind.schema}; upgrade it: git pull in its checkout (or make the "
            f"{kind.noun} with this version: {kind.command(folder)})"
        )
    if data.pop("digest", None) != json_digest(data):
        raise kind.damaged(file, "differs from the digest it carries")
    known = {field.name for field in dataclasses.fields(kind.manifest)}
    try:
        return kind.manifest(**{name: value for name, value in data.items() if name in known})
    except TypeError as error:
        raise kind.damaged(file, f"incomplete ({error})") from error


def parse_json(text: Union[str, bytes], **how: Any) -> Any:
    """Return what json.loads does; ValueError for what is nested too deeply for it, too."""
    try:
        return json.loads(text, **how)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def manifest_text(manifest: Any) -> str:
    """Return the text of a manifest's file: the manifest and its own digest."""
    data = dataclasses.asdict(manifest)
    data["digest"] = json_digest(data)
    return json.dumps(data, indent=1) + "\n"


def check_files(kind: Kind, folder: Path, manifest: Any) -> None:
    """Raise ConformanceError naming the file that is missing, truncated or altered."""
    for name, expected in manifest.files.items():
        wrong = _file_problem(folder / name, expected)
        if wrong:
            raise kind.damaged(folder / name, wrong)


def _file_problem(file: Path, expected: dict[str, Any]) -> Optional[str]:
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            return f"has {size} bytes instead of {expected['bytes']}"
        if file_digest(file) != expected["sha256"]:
            return "its SHA-256 differs from the one recorded"
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def write_folder(kind: Kind, target: Path, manifest: Any, fill: Callable[[Path], object]) -> None:
    """Let `fill` write the files of a folder, and seal it, replacing one that is there.

    manifest: complete but for `files`; `fill` may still complete it. Only the holder of a lock on
    the folder above may call this: whatever is unfinished there belongs to a dead writer. Nothing
    shows under the folder's name before all is on disk; what is raised leaves nothing behind.
    """
    _remove_unfinished(target.parent)
    temporary = target.parent / f"{TEMPORARY}{target.name}-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir()
        fill(temporary)
        files = sorted(file for file in temporary.iterdir() if file.name != kind.file)
        for file in files:
            _fsync(file)
        manifest.files = {
            file.name: {"sha256": file_digest(file), "bytes": file.stat().st_size} for file in files
        }
        (temporary / kind.file).write_text(manifest_text(manifest), encoding="utf-8")
        _fsync(temporary / kind.file)
        _fsync(temporary)
        _publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    for leftover in folder.glob(TEMPORARY + "*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _publish(temporary: Path, target: Path) -> None:
    if target.exists():
        # A folder that is not empty cannot be replaced in one step: move it aside first.
        os.replace(target, target.parent / f"{TEMPORARY}replaced-{uuid.uuid4().hex[:8]}")
    os.replace(temporary, target)
    _fsync(target.parent)
    _remove_unfinished(target.parent)


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path, of the same suffix, for a file that is `path` once the block ends well.

    It is there whole or not at all, whoever else writes it; if durable, even if the power fails.
    What a killed writer of the same file left is removed.
    """
    stem = f".{hashlib.sha256(path.name.encode()).hexdigest()[:8]}-"
    for leftover in path.parent.glob(f"{stem}*"):
        with locked(leftover) as free:
            if free:
                leftover.unlink(missing_ok=True)
    temporary = path.with_name(f"{stem}{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        temporary.touch()
        with locked(temporary):
            yield temporary
            if durable:
                _fsync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8, its line ends as they are in `text`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode())


def _fsync(path: Path) -> None:
    """Have the disk hold what was written to the file or folder."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def means_full(error: Exception) -> bool:
    """Return whether an error of a writer says that the disk is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # TensorFlow has exceptions of its own, and NumPy reports a short write without errno.
    text = str(error)
    return "No space left" in text or re.search(r"\d+ requested and \d+ written", text) is not None


def raise_shortage(error: Exception) -> None:
    """Raise what says that the disk or the memory is full, which is no refusal of anybody's.

    To be called where an error is taken for a converter's or a framework's answer. Raises OSError
    for a disk, MemoryError for memory.
    """
    if means_full(error):
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {error}") from error
    if isinstance(error, MemoryError):
        raise error


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file as hex digits, reading 1 MiB at a time."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value` (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
