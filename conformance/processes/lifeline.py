"""A child ends with its parent, however that ends: who was killed by SIGKILL kills nobody.

The parent holds one end of a pipe, which the kernel closes with it; the child waits at the other.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAME = "CONFORMANCE_LIFELINE"


class Lifeline:
    """The parent's end. fds: what the child is to inherit; variables: what tells it so."""

    def __init__(self) -> None:
        self.fds: tuple[int, ...] = ()
        self.variables: dict[str, str] = {}
        self._held = -1
        if os.name != "nt":  # where a child inherits no such descriptors
            theirs, self._held = os.pipe()
            self.fds, self.variables = (theirs,), {_NAME: str(theirs)}

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Close the child's end here once the child has it, and both where it does not start."""
        try:
            yield
        except BaseException:
            self.close()
            raise
        finally:
            for fd in self.fds:
                os.close(fd)

    def close(self) -> None:
        """Let go: a child that is still there ends."""
        held, self._held = self._held, -1
        if held >= 0:
            os.close(held)


def watch() -> None:
    """In a child: have this process and all of its group killed once its parent is gone."""
    given = os.environ.pop(_NAME, "")  # not for the child's own children
    if given.isdecimal():
        with suppress(OSError):  # another's variable: this is none of our children
            os.set_inheritable(int(given), False)
            threading.Thread(target=_wait, args=(int(given),), daemon=True).start()


def _wait(fd: int) -> None:
    with suppress(OSError):
        os.read(fd, 1)  # nothing is ever written: this ends with the parent
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
