"""OpenCV's child with a real fault: ``python -m conformance.selftest.sabotaged_child REQUEST``.

The environment's SABOTAGE names it: a key of FAULTS or ANSWERS, a space, and the stage that it
strikes at, of the model SABOTAGED_MODEL where there is such a variable; "unchecked-target": a
target is set whether getAvailableTargets offers it or not; "silent-cpu": the network stays on the
CPU, whatever target is asked for, and OpenCV says nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from conformance.opencv import child, layers, net

from .broken_cv2 import ANSWERS, FAULTS, answer


class _Anything:
    def __contains__(self, _: object) -> bool:
        return True


class _OnTheCpu:
    """A network that takes every target, and keeps its own."""

    def __init__(self, net: Any) -> None:
        self._net = net

    def __getattr__(self, name: str) -> Any:
        return (lambda _: None) if name == "setPreferableTarget" else getattr(self._net, name)


class _Answering:
    """A network whose answers are changed; with "scribble" what it was given is, too."""

    def __init__(self, net: Any, how: str) -> None:
        self._net, self._how, self._given = net, how, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def setInput(self, blob: Any, *more: Any) -> None:
        self._given = blob
        self._net.setInput(blob, *more)

    def forward(self, *given: Any) -> Any:
        found = self._net.forward(*given)
        return answer(self._how, found, self._given) if _struck.is_set() else found


_struck = threading.Event()  # once the stage has begun


def sabotage(how: str, stage: str = "") -> None:
    """Put the fault in the way of what runs next in this process."""
    if how == "unchecked-target":
        mock.patch.object(net, "available_targets", return_value=_Anything()).start()
        return
    if how == "silent-cpu":
        on_target = net.read
        mock.patch.object(net, "read", lambda *given: _OnTheCpu(on_target(*given))).start()
        return
    if how in ANSWERS:
        reading = net.read
        for room in (net, layers):
            mock.patch.object(
                room, "read", lambda *a, **k: _Answering(reading(*a, **k), how)
            ).start()
    begun = child.Session.stage

    @contextmanager
    def faulty(session: child.Session, name: str) -> Iterator[None]:
        with begun(session, name):
            if name == stage and os.environ.get("SABOTAGED_MODEL") in (None, session.model):
                _struck.set()
                FAULTS.get(how, bool)()
            yield

    mock.patch.object(child.Session, "stage", faulty).start()


if __name__ == "__main__":
    sabotage(*os.environ["SABOTAGE"].split())
    child.main(Path(sys.argv[1]))
