"""What goes wrong in an OpenCV that is broken on purpose; imports nothing of the suite.

`changed_packages` writes it beside a copy of the installed cv2, whose readers and nets it changes.
The environment's BROKEN has then: a key of FAULTS or ANSWERS, "read" or "forward", and the SHA-256
of the file that it strikes at. All other files are read and answered as ever.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from functools import wraps
from pathlib import Path
from typing import Any, Callable

import numpy as np

_NUMBERS = itertools.count()
READERS = ("readNet", "readNetFromTensorflow", "readNetFromONNX", "readNetFromTFLite")


def _segv() -> None:
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"sabotage: helper process {helper.pid}", flush=True)
    time.sleep(600)


def _fill_memory() -> None:
    import resource

    with open("/proc/self/statm", encoding="utf-8") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (256 << 20), resource.RLIM_INFINITY))
    held = []
    while True:
        held.append(bytearray(8 << 20))


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _print() -> None:
    """Print a megabyte a second from now on."""

    def printing() -> None:
        while True:
            for descriptor in (1, 2):
                os.write(descriptor, (b"noise " * 17 + b"\n") * 500)
            time.sleep(0.1)

    threading.Thread(target=printing, daemon=True).start()
    time.sleep(0.5)


def _nan(answer: Any) -> Any:
    answer = np.array(answer)
    answer.flat[answer.size // 2] = np.nan
    return answer


def _other_bits(answer: Any) -> Any:
    answer = np.array(answer, np.float32)
    answer.view(np.int32).flat[0] += next(_NUMBERS)  # so many units in the last place
    return answer


FAULTS: dict[str, Callable[[], object]] = {
    "segv": _segv,
    "abort": os.abort,
    "kill": _kill,
    "hang": _hang,
    "memory": _fill_memory,
    "full": _full,
    "print": _print,
}
# What becomes of each answer.
ANSWERS: dict[str, Callable[[Any], Any]] = {
    "nan": _nan,
    "shape": lambda answer: np.array(answer)[..., :-1],
    "bits": _other_bits,
    "scribble": lambda answer: answer,
}


def answer(how: str, found: Any, given: Any) -> Any:
    """Return what becomes of a forward's answer, or answers; `given`, its input, may change."""
    if how not in ANSWERS:
        return found
    if how == "scribble":
        given[...] = 7
    change = ANSWERS[how]
    return [change(one) for one in found] if isinstance(found, (list, tuple)) else change(found)


class Broken:
    """Readers and nets that go wrong with one file, once change() has put them in place."""

    def __init__(self, dnn: Any) -> None:
        self._how, self._stage, self._digest = os.environ["BROKEN"].split()
        self._forward, self._set_input = dnn.Net.forward, dnn.Net.setInput
        self._is_victim = False  # the file read last
        self._given: Any = None

    def strike(self, stage: str) -> None:
        """Do what is to go wrong, if its moment has come."""
        if self._is_victim and self._stage == stage:
            FAULTS.get(self._how, bool)()

    def reader(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """Return the reader that strikes before it reads."""

        @wraps(read)
        def reading(model: Any, *more: Any, **named: Any) -> Any:
            data = Path(model).read_bytes() if isinstance(model, str) else bytes(model)
            self._is_victim = hashlib.sha256(data).hexdigest() == self._digest
            self.strike("read")
            return read(model, *more, **named)

        return reading

    def set_input(self, net: Any, blob: Any, *more: Any, **named: Any) -> Any:
        """Keep what a net was given."""
        self._given = blob
        return self._set_input(net, blob, *more, **named)

    def forward(self, net: Any, *more: Any, **named: Any) -> Any:
        """Strike, or answer as ever, or something else."""
        self.strike("forward")
        found = self._forward(net, *more, **named)
        return answer(self._how, found, self._given) if self._is_victim else found


def change(dnn: Any) -> None:
    """Have the readers and nets of an OpenCV go wrong as BROKEN says."""
    broken = Broken(dnn)
    for name in READERS:
        if hasattr(dnn, name):
            setattr(dnn, name, broken.reader(getattr(dnn, name)))
    # Functions, which are bound to the net as methods of the instance here are not.
    dnn.Net.forward = lambda net, *more, **named: broken.forward(net, *more, **named)
    dnn.Net.setInput = lambda net, *more, **named: broken.set_input(net, *more, **named)
