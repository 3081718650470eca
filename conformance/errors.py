"""The one exception family whose message is meant for the user, shown without a traceback."""

from __future__ import annotations


class ConformanceError(Exception):
    """Something the user can put right.

    The message names the file, model or option, says what was expected and what to do next.
    Commands print it and exit with status 2; pytest shows it as the error of the test.
    """


def install(extra: str) -> str:
    """Return the command that installs an extra; the package is in no index."""
    return f"python -m pip install -e '.[{extra}]' in a checkout"
