"""Temporary folders, and the end of those whose process was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Optional

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
        self._lock = _locked(self.name)

    def cleanup(self) -> None:
        """Remove the folder, and let its lock go."""
        super().cleanup()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _locked(folder: str) -> Optional[int]:
    """Return the descriptor of a folder that nobody holds, locked; None for one that is held."""
    try:
        import fcntl
    except ImportError:  # Windows, which has neither these locks nor SIGKILL
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None


@cache
def _sweep(root: str) -> None:
    """Remove the folders of processes that are no more, once a process."""
    for folder in Path(root).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if abs(time.time() - folder.stat().st_mtime) < _AGE:
                continue
            lock = _locked(str(folder))
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
