"""Every child process is started here, killed with all that it started, and its end put in words.

Environments with a wheel of OpenCV and NumPy alone run this too: the standard library is enough.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Optional

from conformance.errors import ConformanceError

from .lifeline import Lifeline
from .serve import REFUSED

_ROOT = Path(__file__).resolve().parents[2]
_LOG_BYTES = 64 * 1024
_LOG_LINES = 20


@dataclass(frozen=True)
class Ending:
    """How a child ended, and what it printed. As text: how, and the last lines that it printed."""

    code: Optional[int]  # its exit code; negative: a signal; None: ended at the time limit
    output: str  # its stdout, where nobody else reads that
    log: str  # the last 64 KiB of its stderr
    timeout: Optional[float] = None  # its time limit in seconds

    @property
    def signal(self) -> Optional[str]:
        """The signal's name, such as "SIGSEGV", or None."""
        if self.code is None or self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"

    @property
    def how(self) -> str:
        """How it ended, in words that follow "its process"."""
        if self.code is None:
            return f"gave no answer within the time limit of {self.timeout:g} s"
        if self.signal:
            return f"was killed by {self.signal}{' (out of memory?)' * (self.signal == 'SIGKILL')}"
        return f"ended with exit code {self.code}"

    def __str__(self) -> str:
        return f"{self.how}.{last_lines(self.log)}"


def last_lines(log: str) -> str:
    """Return the last lines of `log` for the end of a message, or "" if it is empty."""
    lines = log.strip().splitlines()[-_LOG_LINES:]
    return "\nIts last output:\n" + "\n".join("  " + line for line in lines) if lines else ""


@dataclass(frozen=True)
class Interpreter:
    """The Python that a child runs on."""

    python: str = sys.executable
    # Where it finds this package if that is all it may see of the packages installed here, as an
    # environment of another OpenCV must; None for this interpreter's own surroundings.
    code: Optional[Path] = None


HERE = Interpreter()


# Has glibc keep what a process frees. A framework's arrays are large: by default each comes from
# the kernel and goes back to it, page by page, which took a quarter of a judge's time.
REUSED_HEAP: Mapping[str, Any] = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
}


def child_environment(code: Optional[Path] = None, **changes: Optional[str]) -> dict[str, str]:
    """Return the environment variables of a child: this package importable, OpenCV's warnings on.

    code: as in Interpreter. changes: further variables; None takes one away.
    """
    merged: dict[str, Optional[str]] = dict(os.environ)
    merged["OPENCV_FORCE_DNN_ENGINE"] = None  # it overrides the engine that a run asks for
    merged["OPENCV_LOG_LEVEL"] = "WARNING"  # nothing else says that OpenCV falls back to the CPU
    if code is not None:
        merged.update(PYTHONPATH=str(code), PYTHONNOUSERSITE="1")
    elif _ROOT.name not in ("site-packages", "dist-packages"):
        # A checkout that pytest put on its own path; the child has to find it as well.
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        merged["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    merged.update(changes)
    return {name: value for name, value in merged.items() if value is not None}


class Child:
    """A running process in a session of its own: Ctrl-C is for the parent, which then closes it.

    piped: the caller writes its stdin and reads its stdout. shown: its stderr is this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Optional[Mapping[str, str]] = None,
        piped: bool = False,
        shown: bool = False,
    ) -> None:
        # Files that are open as long as the child lives.
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._lifeline = lifeline = Lifeline()
        with lifeline.starting():
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else self._output,
                stderr=None if shown else self.log,
                env={**(environment or child_environment()), **lifeline.variables},
                pass_fds=lifeline.fds,
                encoding="utf-8",
                start_new_session=True,
            )

    def ending(self, timeout: Optional[float] = None) -> Ending:
        """Wait for its end, at most `timeout` seconds, then kill what is left of it."""
        # Popen.wait with a time limit looks only every 50 ms whether the process has ended.
        waiting = threading.Thread(target=self.process.wait, daemon=True)
        waiting.start()
        waiting.join(timeout)
        code = self.process.returncode
        self.kill()
        return Ending(code, _text(self._output), _text(self.log, _LOG_BYTES), timeout)

    def kill(self) -> None:
        """Kill it and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):  # gone already
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it and close its files."""
        self.kill()
        self._lifeline.close()
        for file in (self.process.stdin, self.process.stdout, self._output, self.log):
            with suppress(OSError):  # what was not written yet has no reader any more
                if file is not None:
                    file.close()


def _text(file: IO[bytes], most: int = sys.maxsize) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    return file.read().decode("utf-8", "replace")


def run_child(
    command: Sequence[str],
    timeout: Optional[float] = None,
    environment: Optional[Mapping[str, str]] = None,
) -> Ending:
    """Run `command` to its end, at most `timeout` seconds."""
    with closing(Child(command, environment)) as child:
        return child.ending(timeout)


def ask_module(
    module: str,
    arguments: Sequence[str],
    timeout: Optional[float],
    failure: str,
    interpreter: Interpreter = HERE,
    **changes: Optional[str],
) -> Any:
    """Return what ``python -m module arguments`` answers by serve.answer_once.

    changes: as for child_environment. Raises ConformanceError that begins with `failure`, such as
    "can't time xception", where the child refuses or dies.
    """
    with closing(begin_module(module, arguments, interpreter, **changes)) as child:
        return answer_of(child, timeout, failure)


def begin_module(
    module: str,
    arguments: Sequence[str],
    interpreter: Interpreter = HERE,
    **changes: Optional[str],
) -> Child:
    """Start what ask_module asks; the caller closes it."""
    command = [interpreter.python, "-m", module, *arguments]
    return Child(command, child_environment(interpreter.code, **changes))


def answer_of(child: Child, timeout: Optional[float], failure: str) -> Any:
    """Return what a child of begin_module answers, as ask_module does."""
    ending = child.ending(timeout)
    if ending.code not in (0, REFUSED) or not ending.output:
        raise ConformanceError(f"{failure}: its process {ending}")
    answer = json.loads(ending.output)
    if ending.code == REFUSED:
        raise ConformanceError(f"{failure}: {answer['error']}")
    return answer
