"""Temporary folders, and the end of those whose process was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

_PREFIX = "opencv-conformance-run-"
# One that is younger may be about to be locked by its owner.
_AGE = 60.0


if TYPE_CHECKING:
    _Folder = tempfile.TemporaryDirectory[str]
else:
    _Folder = tempfile.TemporaryDirectory


class Scratch(_Folder):
    """A temporary folder, locked as long as its process lives.

    A process that is killed leaves its folders; the next one's first folder takes them away.
    """

    def __init__(self) -> None:
        _sweep(tempfile.gettempdir())
        super().__init__(prefix=_PREFIX)
        self._lock = ExitStack()
        self._lock.enter_context(locked(Path(self.name)))

    def cleanup(self) -> None:
        """Remove the folder, and let its lock go."""
        super().cleanup()
        self._lock.close()


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file or folder as long as the block, or this process, lasts; False if that can't be.

    That is where another process holds it, and on Windows, which has neither these locks nor
    SIGKILL.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(descriptor)


@cache
def _sweep(root: str) -> None:
    """Remove the folders of processes that are no more, once a process."""
    for folder in Path(root).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if abs(time.time() - folder.stat().st_mtime) < _AGE:
                continue
            with locked(folder) as free:
                if free:
                    shutil.rmtree(folder, ignore_errors=True)
