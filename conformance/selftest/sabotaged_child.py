"""OpenCV's child with a real fault: ``python -m conformance.selftest.sabotaged_child REQUEST``.

The environment's SABOTAGE names it: a key of FAULTS, a space, and the stage that it strikes at;
"unchecked-target": a target is set whether getAvailableTargets offers it or not; "silent-cpu": the
network stays on the CPU, whatever target is asked for, and OpenCV says nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable
from unittest import mock

from conformance.opencv import child, net


def _segv() -> None:
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"sabotage: helper process {helper.pid}", flush=True)
    time.sleep(600)


class _Anything:
    def __contains__(self, _: object) -> bool:
        return True


class _OnTheCpu:
    """A network that takes every target, and keeps its own."""

    def __init__(self, net: Any) -> None:
        self._net = net

    def __getattr__(self, name: str) -> Any:
        return (lambda _: None) if name == "setPreferableTarget" else getattr(self._net, name)


FAULTS: dict[str, Callable[[], object]] = {
    "segv": _segv,
    "abort": os.abort,
    "kill": _kill,
    "hang": _hang,
}


def sabotage(how: str, stage: str = "") -> None:
    """Put the fault in the way of what runs next in this process."""
    if how == "unchecked-target":
        mock.patch.object(net, "available_targets", return_value=_Anything()).start()
        return
    if how == "silent-cpu":
        read = net.read
        mock.patch.object(net, "read", lambda *given: _OnTheCpu(read(*given))).start()
        return
    begun = child.Session.stage

    @contextmanager
    def faulty(session: child.Session, name: str) -> Iterator[None]:
        with begun(session, name):
            if name == stage:
                FAULTS[how]()
            yield

    mock.patch.object(child.Session, "stage", faulty).start()


if __name__ == "__main__":
    sabotage(*os.environ["SABOTAGE"].split())
    child.main(Path(sys.argv[1]))
