"""What the scripts that reproduce a failure have in common: how they read the file, and their run.

The scripts themselves are what a user of OpenCV gets: they need cv2 and NumPy only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from conformance.errors import ConformanceError, os_errors
from conformance.processes.child import run_child

from .importers import IMPORTERS

_TIMEOUT = 120.0  # seconds that a script may take


def read_call(importer: str, engine: str, constants: Mapping[str, str], file: str) -> str:
    """Return the call of cv2 that reads a file in the folder `here`.

    constants: of OpenCV's engines, by name; where it has but one, there is nothing to choose.
    """
    reader = IMPORTERS[importer]
    arguments = [f'os.path.join(here, "{file}")']
    if len(constants) > 1:
        arguments += [*map(json.dumps, reader.BEFORE_ENGINE), f"cv2.dnn.{constants[engine]}"]
    return f"cv2.dnn.{reader.READER}({', '.join(arguments)})"


def failing_output(script: Path) -> Optional[str]:
    """Return what a script printed if it shows a failure of OpenCV, None if it ends well.

    Raises ConformanceError where it fails before it comes to OpenCV.
    """
    ending = run_child([sys.executable, str(script.resolve())], _TIMEOUT)
    if ending.code == 0:
        return None
    if ending.code is not None and "OpenCV" not in ending.output:
        raise ConformanceError(f"{script} could not be run: its process {ending}")
    crash = f"\nThe process {ending.how}." if ending.code is None or ending.signal else ""
    return f"{ending.output}{ending.log}".strip() + crash


def make_folder(root: Path) -> None:
    """Make the folder that --reduce writes to; raise ConformanceError where it can't be one."""
    with os_errors(f"--reduce {root}: can't be made a folder", "; choose another"):
        root.mkdir(parents=True, exist_ok=True)


def remove_attempt(folder: Path, file: str) -> None:
    """Remove what the last attempt wrote: a script that shows no failure must not stay.

    file: what the script reads besides input and truth.
    """
    for name in (file, "input.npy", "expected.npy", "reproduce.py"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other files are in it
        folder.rmdir()


def quoted(output: str, folder: Path) -> str:
    """Return what a script printed as a block of Markdown.

    Whoever reads it has the files elsewhere than in `folder`, and need not know where that was.
    """
    here = output.replace(f"{folder.resolve()}{os.sep}", "")
    return "\n".join("    " + line for line in here.splitlines())
