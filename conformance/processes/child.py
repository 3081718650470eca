"""Start a child process that imports cv2, with a time limit, and read how it ended. No cv2 here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

_ROOT = Path(__file__).resolve().parents[2]
_LOG_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ending:
    """How a child process ended: its exit code (negative: a signal), or None at the time limit."""

    code: Optional[int]
    log: str

    @property
    def signal(self) -> Optional[str]:
        """The signal's name, such as "SIGSEGV", or None."""
        if self.code is None or self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"


@dataclass(frozen=True)
class Interpreter:
    """The Python that a child runs on.

    code: where it finds this package if that is all it may see of the packages installed here,
    as an environment of another OpenCV must; None for this interpreter's own surroundings.
    """

    python: str = sys.executable
    code: Optional[Path] = None


HERE = Interpreter()


def child_environment(code: Optional[Path] = None) -> dict[str, str]:
    """Return the environment of a child: this package importable, OpenCV's warnings printed.

    code: as in Interpreter. OPENCV_FORCE_DNN_ENGINE is taken out, as it overrides the engine a
    run asks for.
    """
    env = {key: value for key, value in os.environ.items() if key != "OPENCV_FORCE_DNN_ENGINE"}
    if code is None:
        paths = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
        env["PYTHONPATH"] = os.pathsep.join([*paths, str(_ROOT)])
    else:
        env.update(PYTHONPATH=str(code), PYTHONNOUSERSITE="1")
    # Falling back to the CPU is told by a warning only.
    env["OPENCV_LOG_LEVEL"] = "WARNING"
    return env


def run_module(
    module: str,
    arguments: Sequence[str],
    log: Path,
    timeout: float,
    interpreter: Interpreter = HERE,
) -> Ending:
    """Run ``python -m module arguments`` and wait at most `timeout` seconds.

    stdout and stderr go to the file `log`. At the time limit, and when this process is
    interrupted, the child and whatever it started are killed.
    """
    command = [interpreter.python, "-m", module, *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(interpreter.code),
            start_new_session=True,
        )
        try:
            code: Optional[int] = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(process)
    return Ending(code, read_log(log))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass  # gone already
    process.wait()


def read_log(log: Path) -> str:
    """Return the last 64 KiB of the file as text."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def last_lines(log: str, count: int = 20) -> str:
    """Return the last lines of `log` for a message, or "" if it is empty."""
    lines = log.strip().splitlines()[-count:]
    return "\nIts last output:\n" + "\n".join("  " + line for line in lines) if lines else ""
