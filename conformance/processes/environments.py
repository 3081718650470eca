"""A light environment for each OpenCV wheel: the wheel and NumPy, made once with venv and pip."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import filelock
import platformdirs
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

import conformance
from conformance.errors import ConformanceError
from conformance.opencv.capability import probe_in_child

from .child import Interpreter

DISTRIBUTION = "opencv-python-headless"
# What old wheels need. Those before 4.5.4 are for one minor version of Python each, up to 3.9.
# Those before 4.10 were built against NumPy 1, which has no wheels for Python 3.13.
_NEEDS = (
    (SpecifierSet("<4.5.4"), "numpy<2", (3, 9)),
    (SpecifierSet("<4.10"), "numpy<2", (3, 12)),
    (SpecifierSet(">=0"), "numpy", (3, 99)),
)
_OLDEST_PYTHON = (3, 9)
_TIMEOUT = 1800.0  # of pip, in seconds


@dataclass(frozen=True)
class Environment:
    """A ready environment. spec: what was asked for. found: what capability.probe says of it."""

    spec: str
    interpreter: Interpreter
    found: dict[str, Any]

    @property
    def version(self) -> str:
        """The version of OpenCV itself, such as "4.12.0"."""
        return str(self.found["version"])


def default_root() -> Path:
    """Return the folder of environments in the user's cache."""
    return Path(platformdirs.user_cache_dir("opencv-dnn-conformance")) / "environments"


def prepare(spec: str, root: Path, code: Path) -> Environment:
    """Return the environment of the OpenCV `spec`, made if it is not there.

    spec: a version of opencv-python-headless, such as "4.12.0.88" or "4.12.0" (its newest wheel),
    or the path of a wheel. root: folder of environments. code: folder with a copy of this package,
    see `copy_package`. Raises ConformanceError for a version that is unknown, can't be installed
    or can't be imported.
    """
    requirement, version = _requirement(spec)
    _, numpy, newest = next(need for need in _NEEDS if need[0].contains(version, prereleases=True))
    python = _find_python(spec, newest)
    folder = root / _folder_name(spec, python)
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(folder.name + ".lock")):
        # A link to a Python that was removed since does not exist.
        if not ((folder / "ready").exists() and _python_in(folder).exists()):
            _make(folder, python, [requirement, numpy])
    interpreter = Interpreter(str(_python_in(folder)), code)
    try:
        return Environment(spec, interpreter, probe_in_child(interpreter=interpreter))
    except ConformanceError as error:
        raise ConformanceError(
            f"OpenCV {spec} was installed but can't be used: {error}\n"
            f"(its environment is {folder}; remove that to have it made again)"
        ) from error


def copy_package(folder: Path) -> Path:
    """Copy this package into `folder`, by itself, and return `folder`.

    Beside an installed package lie others, OpenCV among them, which no environment may see.
    """
    source = Path(conformance.__file__).parent
    ignored = shutil.ignore_patterns("selftest", "_fixtures", "__pycache__")
    shutil.copytree(source, folder / "conformance", ignore=ignored)
    return folder


def _requirement(spec: str) -> tuple[str, Version]:
    """Return what pip is asked for, and the version it is of."""
    path = Path(spec)
    if spec.endswith(".whl"):
        if not path.is_file():
            raise ConformanceError(f"--opencv {spec}: there is no such wheel")
        return str(path.resolve()), _version(spec, path.name.split("-")[1])
    exact = spec if spec.count(".") >= 3 else f"{spec}.*"
    return f"{DISTRIBUTION}=={exact}", _version(spec, spec)


def _version(spec: str, text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise ConformanceError(
            f"--opencv {spec}: not a version; give one of {DISTRIBUTION}'s, such as 4.12.0.88, or "
            f"the path of a wheel"
        ) from None


def _folder_name(spec: str, python: str) -> str:
    name = spec
    if spec.endswith(".whl"):
        path = Path(spec).resolve()
        name = f"{path.stem}-{path.stat().st_mtime_ns:x}"
    major, minor = _python_version(python) or (0, 0)
    return f"{name}-py{major}.{minor}"


def _find_python(spec: str, newest: tuple[int, int]) -> str:
    """Return this Python, if it is old enough, or else the newest on the PATH that is."""
    for candidate in _pythons(newest):
        version = _python_version(candidate)
        if version is not None and _OLDEST_PYTHON <= version <= newest:
            return candidate
    limit = f"{newest[0]}.{newest[1]}"
    raise ConformanceError(
        f"OpenCV {spec} needs Python {limit} or older, and no python{limit} on the PATH runs; with "
        f"pyenv: PATH=$PATH:$(pyenv prefix {limit})/bin python -m conformance bench ..."
    )


def _pythons(newest: tuple[int, int]) -> Iterator[str]:
    yield sys.executable
    for minor in range(newest[1], _OLDEST_PYTHON[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            yield found


def _python_version(python: str) -> Optional[tuple[int, int]]:
    """Return (major, minor), or None for one that does not run, such as a pyenv shim of none."""
    if python == sys.executable:
        return sys.version_info[:2]
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    numbers = done.stdout.split()
    return (int(numbers[0]), int(numbers[1])) if done.returncode == 0 else None


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _make(folder: Path, python: str, requirements: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _run([python, "-m", "venv", str(folder)], f"can't make the environment {folder}")
    # Wheels only: building OpenCV from its sources takes hours.
    pip = [str(_python_in(folder)), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--only-binary", ":all:", *requirements]
    try:
        _run(install, f"pip can't install {requirements[0]}")
    except ConformanceError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / "ready").write_text(json.dumps(requirements), encoding="utf-8")


def _run(command: list[str], failure: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConformanceError(f"{failure}: not done within {_TIMEOUT:g} s") from None
    if done.returncode != 0:
        raise ConformanceError(f"{failure}: {_told(done.stderr or done.stdout)}")


def _told(output: str) -> str:
    """Return pip's own words: its first error, of a list of versions only the last ones."""
    lines = output.strip().splitlines() or ["no message"]
    error = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return re.sub(r"from versions: (?:[^,)]+, )*((?:[^,)]+, ){6}[^,)]+\))", r"newest: \1", error)
