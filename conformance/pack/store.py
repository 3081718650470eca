"""The folder of packs: finding one, and writing one."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import platformdirs

from conformance.errors import ConformanceError
from conformance.models import EXTENDED, MODELS, get_model

from .format import PACK, Manifest, Pack, open_pack, read_manifest
from .request import (
    AS_IT_IS,
    PackRequest,
    built_with,
    describe_request,
    pack_key,
    request_versions,
)
from .sealed import Kind, means_full, write_folder

if TYPE_CHECKING:
    from filelock import FileLock

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def default_packs() -> Path:
    """Return the pack folder used where --packs is not given.

    That is $CONFORMANCE_PACKS, or else one in the user's cache folder.
    """
    chosen = os.environ.get("CONFORMANCE_PACKS")
    if chosen:
        return Path(os.path.realpath(Path(chosen).expanduser()))
    return Path(platformdirs.user_cache_dir("opencv-dnn-conformance")) / "packs"


def list_packs(root: Path, pattern: str = "*/*") -> list[Path]:
    """Return the folders under `root` that should be packs, by model and key."""
    folders = root.glob(pattern)
    return sorted(f for f in folders if f.is_dir() and not f.name.startswith("."))


def require_packs(root: Path) -> list[Path]:
    """Return the folders of `list_packs`; raise ConformanceError where there are none."""
    folders = list_packs(root)
    if not folders:
        raise ConformanceError(
            f"pack folder {root}: there are no packs; build some with "
            f"python -m conformance pack build --packs {root}"
        )
    return folders


def locate_pack(root: Path, request: PackRequest) -> Optional[Path]:
    """Return the folder of the pack that answers `request`, its files not yet checked, or None.

    Where what builds it is installed, only the pack of exactly these versions will do. Elsewhere
    the newest pack of the request does. Of a model of the user's that is known by name only, the
    newest pack of that name. Raises ConformanceError when the only candidates are unreadable.
    """
    if request.own is not None and request.own.path is None:
        return _newest_match(root / request.model, {"graph": request.graph})
    producer = request_versions(request)
    if producer is not None:
        exact = root / request.model / pack_key(request, producer)
        return exact if exact.is_dir() else None
    return _newest_match(root / request.model, describe_request(request))


def _newest_match(folder: Path, wanted: dict[str, str]) -> Optional[Path]:
    matches: list[tuple[str, Path]] = []
    problems: list[ConformanceError] = []
    for path in list_packs(folder, "*"):
        try:
            manifest = read_manifest(path)
        except ConformanceError as error:
            problems.append(error)
            continue
        if all(manifest.request.get(key) in (value, AS_IT_IS) for key, value in wanted.items()):
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
            f"no pack of {request.model} in {root}: build it where {built_with(request)} is "
            f"installed: python -m conformance pack build {shlex.join(words)} --packs {root}"
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
    from filelock import FileLock  # here: who reads packs, as most commands do, needs none

    return FileLock(path)


def write_pack(root: Path, manifest: Manifest, fill: Callable[[Path], object]) -> Pack:
    """Write a pack as <root>/<model>/<key> and return it, replacing one that is there.

    manifest: complete but for `files`; `fill`, which writes the pack's files into the folder it is
    given, may still complete it (layers, passes). See write_sealed.
    """
    folder = root / manifest.model / manifest.key
    write_sealed(PACK, root, folder, manifest, fill)
    return Pack(folder, manifest)


def write_sealed(
    kind: Kind, root: Path, target: Path, manifest: Any, fill: Callable[[Path], object]
) -> None:
    """Write a sealed folder of manifest.model, whole or not at all, holding the model's lock.

    Raises ConformanceError when the disk is full or forbidden, and where there is no memory left.
    """
    try:
        with pack_lock(root, manifest.model):
            write_folder(kind, target, manifest, fill)
    except ConformanceError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError):
            raise ConformanceError(
                f"{manifest.model}: there is not enough memory to build its pack ({error}): free "
                f"some, or build it where nothing else runs"
            ) from error
        if means_full(error):
            raise _full_disk(root, manifest.model, error) from error
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            raise unwritable(root, error) from error
        raise


def _full_disk(root: Path, model: str, error: Exception) -> ConformanceError:
    free, needed = shutil.disk_usage(root).free, ""
    if model in MODELS or model in EXTENDED:
        needed = f", the pack needs about {_mib(estimated_bytes(model))}"
    return ConformanceError(
        f"pack folder {root}: no space left while writing the pack of {model} ({error}). "
        f"{_mib(free)} are free now{needed}: "
        f"free some or choose another folder with --packs"
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
