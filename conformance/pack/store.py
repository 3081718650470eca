"""The folder of packs: finding one, and writing one so that nothing is ever half-done."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Callable, Optional

import platformdirs
from filelock import FileLock

from conformance.errors import ConformanceError
from conformance.models import EXTENDED, MODELS, get_model

from .format import MANIFEST, Manifest, Pack, manifest_text, open_pack, read_manifest
from .request import PackRequest, describe_request, file_digest, pack_key, producer_versions

TEMPORARY = ".tmp-"
# Quotas and file size limits stop a writer as a full disk does.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def default_packs() -> Path:
    """Return the pack folder used where --packs is not given.

    That is $CONFORMANCE_PACKS, or else one in the user's cache folder.
    """
    chosen = os.environ.get("CONFORMANCE_PACKS")
    if chosen:
        return Path(chosen).expanduser().resolve()
    return Path(platformdirs.user_cache_dir("opencv-dnn-conformance")) / "packs"


def list_packs(root: Path) -> list[Path]:
    """Return the folders under `root` that should be packs, by model and key."""
    folders = root.glob("*/*")
    return sorted(f for f in folders if f.is_dir() and not f.name.startswith("."))


def locate_pack(root: Path, request: PackRequest) -> Optional[Path]:
    """Return the folder of the pack that answers `request`, its files not yet checked, or None.

    Where TensorFlow is installed, only the pack of exactly these versions will do. Elsewhere the
    newest pack of the request does. Of a model of the user's that is known by name only, the newest
    pack of that name. Raises ConformanceError when the only candidates are unreadable.
    """
    if request.own is not None and request.own.path is None:
        return _newest_match(root / request.model, {"graph": request.graph})
    producer = producer_versions(request.keras)
    if producer is not None:
        exact = root / request.model / pack_key(request, producer)
        return exact if exact.is_dir() else None
    return _newest_match(root / request.model, describe_request(request))


def _newest_match(folder: Path, wanted: dict[str, str]) -> Optional[Path]:
    matches: list[tuple[str, Path]] = []
    problems: list[ConformanceError] = []
    for path in sorted(f for f in folder.glob("*") if f.is_dir() and not f.name.startswith(".")):
        try:
            manifest = read_manifest(path)
        except ConformanceError as error:
            problems.append(error)
            continue
        if all(manifest.request.get(key) == value for key, value in wanted.items()):
            matches.append((manifest.created, path))
    if not matches and problems:
        raise problems[0]
    return max(matches)[1] if matches else None


def find_pack(root: Path, request: PackRequest) -> Optional[Pack]:
    """Return the checked pack that answers `request`, or None where there is none.

    Raises ConformanceError for a damaged pack (see open_pack, locate_pack).
    """
    path = locate_pack(root, request)
    return None if path is None else open_pack(path)


def require_pack(root: Path, request: PackRequest) -> Pack:
    """Return the checked pack that answers `request`; raise ConformanceError saying how to get one.

    See find_pack for damaged packs.
    """
    pack = find_pack(root, request)
    if pack is None:
        words = [request.model]
        if request.own is not None:
            words = [*request.own.words] or words
        elif request.weights != "synthetic":
            words += ["--weights", request.weights]
        raise ConformanceError(
            f"no pack of {request.model} in {root}: build it where TensorFlow is installed: "
            f"python -m conformance pack build {shlex.join(words)} --packs {root}"
        )
    return pack


def pack_lock(root: Path, model: str, timeout: float = -1) -> FileLock:
    """Return the lock that a writer of `model`'s packs holds; use it in a ``with`` statement.

    timeout in seconds: 0 raises filelock.Timeout at once when another process has it, -1 waits.
    A process gets the same lock again, so that it may be taken twice without waiting on itself.
    Raises ConformanceError when the folder cannot be created.
    """
    folder = root / model
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(root, error) from error
    lock = _lock(str(folder.resolve() / ".lock"))
    lock.timeout = timeout
    return lock


@cache
def _lock(path: str) -> FileLock:
    return FileLock(path)


def write_pack(root: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Pack:
    """Write a pack as <root>/<model>/<key> and return it, replacing one that is there.

    manifest: complete but for `files`; `fill` may still complete it (layers, passes). fill:
    writes the pack's files into the folder it is given. Nothing shows under the pack's name
    before everything is on disk. Takes the model's lock. Raises ConformanceError when the disk
    is full; whatever is raised, the unfinished folder is removed.
    """
    folder = root / manifest.model
    temporary = folder / f"{TEMPORARY}{manifest.key}-{uuid.uuid4().hex[:8]}"
    with disk_errors_explained(root, manifest.model), pack_lock(root, manifest.model):
        remove_unfinished(folder)
        with removed_at_exit(temporary):
            temporary.mkdir()
            fill(temporary)
            _seal(temporary, manifest)
            publish(temporary, folder / manifest.key)
    return Pack(folder / manifest.key, manifest)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left in the folder, whose lock is held."""
    # Only the holder of the lock writes here: whatever is unfinished belongs to a dead writer.
    for leftover in folder.glob(TEMPORARY + "*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def removed_at_exit(temporary: Path) -> Iterator[None]:
    """Remove the folder, if it is still there, when the block ends."""
    try:
        yield
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_errors_explained(root: Path, model: str) -> Iterator[None]:
    """Turn errors of a full or forbidden disk into a ConformanceError."""
    try:
        yield
    except ConformanceError:
        raise
    except Exception as error:
        if _means_full(error):
            raise _full_disk(root, model, error) from error
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            raise unwritable(root, error) from error
        raise


def _means_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # TensorFlow has exceptions of its own, and NumPy reports a short write without errno.
    text = str(error)
    return "No space left" in text or re.search(r"\d+ requested and \d+ written", text) is not None


def _full_disk(root: Path, model: str, error: Exception) -> ConformanceError:
    free = shutil.disk_usage(root).free
    return ConformanceError(
        f"pack folder {root}: no space left while writing the pack of {model} ({error}). "
        f"{_mib(free)} are free now{_needed(model)}: "
        f"free some or choose another folder with --packs"
    )


def _needed(model: str) -> str:
    return (
        f", the pack needs about {_mib(estimated_bytes(model))}"
        if model in MODELS or model in EXTENDED
        else ""
    )


def unwritable(root: Path, error: OSError) -> ConformanceError:
    """Return the error that says the pack folder `root` cannot be written."""
    return ConformanceError(
        f"pack folder {root}: cannot be created or written ({error.strerror}); "
        f"choose another with --packs"
    )


def estimated_bytes(model: str) -> int:
    """Return roughly how many bytes the pack of `model` takes: weights, inputs and layers."""
    spec = get_model(model)
    return 4 * spec.parameters + 8 * 3 * 4 * spec.size**2 + (16 << 20)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _seal(temporary: Path, manifest: Manifest) -> None:
    manifest.files = sealed_files(temporary)
    (temporary / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    fsync(temporary / MANIFEST)
    fsync(temporary)


def sealed_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {name: {"sha256", "bytes"}} of the files in a folder, each on disk by now."""
    files = sorted(f for f in folder.iterdir() if f.name != MANIFEST)
    for file in files:
        fsync(file)
    return {f.name: {"sha256": file_digest(f), "bytes": f.stat().st_size} for f in files}


def publish(temporary: Path, target: Path) -> None:
    """Give a finished folder its name, replacing one that has it."""
    if target.exists():
        # A folder that is not empty cannot be replaced in one step: move it aside first.
        os.replace(target, target.parent / f"{TEMPORARY}replaced-{uuid.uuid4().hex[:8]}")
    os.replace(temporary, target)
    fsync(target.parent)
    remove_unfinished(target.parent)


def fsync(path: Path) -> None:
    """Have the disk hold what was written to the file or folder."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
