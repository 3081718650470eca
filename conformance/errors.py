"""The one exception family whose message is meant for the user, shown without a traceback."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ConformanceError(Exception):
    """Something the user can put right.

    The message names the file, model or option, says what was expected and what to do next.
    Commands print it and exit with status 2; pytest shows it as the error of the test.
    """


def install(extra: str) -> str:
    """Return the command that installs an extra; the package is in no index."""
    return f"python -m pip install -e '.[{extra}]' in a checkout"


def imported(module: str, need: str, extra: str) -> Any:
    """Return a module of an extra; raise ConformanceError where it is not installed.

    need: who needs what, the message's beginning; {error} in it is Python's word.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConformanceError(f"{need.format(error=error)}: {install(extra)}") from error


@contextmanager
def os_errors(what: str, remedy: str = "") -> Iterator[None]:
    """Turn an OSError into a ConformanceError: `what`, the system's reason, `remedy`."""
    try:
        yield
    except OSError as error:
        raise ConformanceError(f"{what} ({error.strerror}){remedy}") from error


@contextmanager
def naming(name: str, kind: str = "") -> Iterator[None]:
    """Have a ConformanceError say what it is about: `kind` and `name`, unless it has the name."""
    try:
        yield
    except ConformanceError as error:
        text = str(error)
        raise ConformanceError(text if name in text else f"{kind}{name}: {text}") from error


def first_line(error: Exception, most: int = 400) -> str:
    """Return how a framework's error begins, in so many characters: it may go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]
