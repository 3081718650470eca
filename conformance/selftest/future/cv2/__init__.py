"""The installed OpenCV without what is to go after 5.0; stands before the real one, and loads it.

Gone are the TensorFlow importer, the classic engine and the switches of a net; ENGINE_NEW is called
ENGINE_OPENCV. All else is the installed one's, whose nets compute.
"""

from __future__ import annotations

import importlib
import sys
from functools import wraps
from pathlib import Path
from typing import Any, Callable

READERS = ("readNet", "readNetFromONNX", "readNetFromTFLite")
GONE = ("readNetFromTensorflow", "ENGINE_CLASSIC", "ENGINE_NEW")
SWITCHES = ("enableFusion", "enableWinograd")


class Net:
    """A net of the installed OpenCV less its switches; a class of C++ lets none be taken away."""

    def __init__(self, net: Any) -> None:
        self._net = net

    def __getattr__(self, name: str) -> Any:
        if name in SWITCHES:
            raise AttributeError(f"'cv2.dnn.Net' object has no attribute '{name}'")
        return getattr(self._net, name)


def _reader(read: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(read)
    def future(*arguments: Any, **named: Any) -> Net:
        return Net(read(*arguments, **named))

    return future


def _installed() -> Any:
    """Import the cv2 that would have been found without this one."""
    here = Path(__file__).resolve().parents[1]
    path = list(sys.path)
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != here]
    del sys.modules[__name__]
    try:
        return importlib.import_module("cv2")
    finally:
        sys.path[:] = path


def _change(dnn: Any) -> None:
    dnn.ENGINE_OPENCV = dnn.ENGINE_NEW
    for name in GONE:
        delattr(dnn, name)
    for name in READERS:
        setattr(dnn, name, _reader(getattr(dnn, name)))


if __name__ == "cv2":
    # What is in sys.modules in the end is what `import cv2` gives.
    _change(_installed().dnn)
