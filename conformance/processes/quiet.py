"""Native code that writes to standard error whatever its log level, and how it is silenced."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


def verbose() -> bool:
    """Whether CONFORMANCE_VERBOSE asks for what TensorFlow logs."""
    return os.environ.get("CONFORMANCE_VERBOSE", "0") not in ("", "0")


@contextlib.contextmanager
def muted_stderr() -> Iterator[None]:
    """Silence what native code writes to file descriptor 2, whatever the log level."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def quiet() -> contextlib.AbstractContextManager[None]:
    """Return a context in which nothing shows on standard error unless CONFORMANCE_VERBOSE=1."""
    return contextlib.nullcontext() if verbose() else muted_stderr()
