"""A builder's turn at one pack, when any number of processes build into one folder.

It imports no TensorFlow: `Turn` is given the function that builds the pack.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import filelock

from conformance.errors import ConformanceError
from conformance.processes.progress import Event, Report

from .conversion import find_conversion
from .format import Pack
from .formats import FORMATS
from .request import PackRequest
from .store import find_pack, pack_lock, unwritable

# Builds one pack and returns it; the last argument is called with the name of each step.
Build = Callable[[PackRequest, Path, Callable[[str], None]], Pack]
# Converts one pack for one importer.
Convert = Callable[[Pack, str, Callable[[str], None]], object]


@dataclass
class Turn:
    """One model's turn, which may have to be tried more than once.

    It builds the pack where that is missing or damaged (always with `force`). A model whose lock
    another process holds is left to it, and not built again if it appeared meanwhile. importers:
    those whose file is made by `convert` where it is missing or damaged.
    """

    request: PackRequest
    root: Path
    build: Build
    report: Report
    force: bool = False
    importers: Sequence[str] = ()
    convert: Optional[Convert] = None
    started: Optional[float] = None
    state: str = ""

    def attempt(self) -> str:
        """Try once; return the state that is reported: "waiting", "built", "found" or "failed"."""
        try:
            with self._lock():
                self.started = time.monotonic()
                self._build_if_needed()
        except filelock.Timeout:
            self._say("another process is building it, waiting", "waiting")
        except ConformanceError as error:
            self._say(str(error), "failed")
        except Exception as error:
            # Not the user's doing: whoever reads this wants to know where it happened.
            trace = traceback.format_exception(type(error), error, error.__traceback__)
            self._say("".join(trace).strip(), "failed")
        return self.state

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = pack_lock(self.root, self.request.model, timeout=0)
        try:
            held = lock.acquire()
        except filelock.Timeout:
            raise
        except OSError as error:
            raise unwritable(self.root, error) from error
        with held:
            yield

    def _build_if_needed(self) -> None:
        pack, built = self._usable(), False
        if pack is None:
            self._say("starting")
            pack, built = self.build(self.request, self.root, self._say), True
        for importer in self.importers if self.request.importer not in FORMATS else ():
            if self.convert is not None and self._conversion_needed(pack, importer):
                self.convert(pack, importer, self._say)
                built = True
        return self._say("built", "built") if built else self._say("already there", "found")

    def _usable(self) -> Optional[Pack]:
        """Return the pack that is there and need not be built again."""
        if self.force and self.state != "waiting":
            return None
        try:
            return find_pack(self.root, self.request)
        except ConformanceError as error:
            self._say(f"building it again, since {error}")
            return None

    def _conversion_needed(self, pack: Pack, importer: str) -> bool:
        try:
            return find_conversion(pack, importer) is None
        except ConformanceError as error:
            self._say(f"converting it again, since {error}")
            return True

    def _say(self, step: str, state: str = "working") -> None:
        seconds = 0.0 if self.started is None else time.monotonic() - self.started
        self.state = state
        self.report(Event(self.request.model, step, seconds, state))
