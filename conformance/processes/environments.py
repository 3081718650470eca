"""A light environment for each OpenCV wheel: the wheel, NumPy and little more, made once.

By uv where it is on the PATH: 3.4 s, 0.5 s with a warm cache, where venv and pip take 33 s.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Optional

import filelock
import platformdirs
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

import conformance
from conformance.errors import ConformanceError, naming, os_errors

from .child import Interpreter, child_environment, run_child

DISTRIBUTION = "opencv-python-headless"
# What old wheels need. Those before 4.5.4 are for one minor version of Python each, up to 3.9.
# Those before 4.10 were built against NumPy 1, which has no wheels for Python 3.13.
_NEEDS = (
    (SpecifierSet("<4.5.4"), "numpy<2", (3, 9)),
    (SpecifierSet("<4.10"), "numpy<2", (3, 12)),
    (SpecifierSet(">=0"), "numpy", (3, 99)),
)
# To read a TFLite file's inner tensors.
_TAPS = "flatbuffers"
_OLDEST_PYTHON = (3, 9)
_TIMEOUT = 1800.0  # of pip, in seconds


def default_root() -> Path:
    """Return the folder of environments in the user's cache."""
    return Path(platformdirs.user_cache_dir("opencv-dnn-conformance")) / "environments"


def prepare(spec: str, root: Path, code: Path, option: str = "--opencv") -> Interpreter:
    """Return the Python that has the OpenCV `spec`, in an environment made if it is not there.

    spec: a version of opencv-python-headless, such as "4.12.0.88" or "4.12.0" (its newest wheel),
    or the path of a wheel. root: folder of environments. code: folder with a copy of this package,
    see `copy_package`. option: that named the wheel. Raises ConformanceError, which begins with it,
    for a version that is unknown or can't be installed.
    """
    with naming(f"{option} {spec}"):
        requirement, version = _requirement(spec)
        fit = (need for need in _NEEDS if need[0].contains(version, prereleases=True))
        _, numpy, newest = next(fit)
        python = _find_python(newest)
        requirements = [requirement, numpy, _TAPS]
        folder = root / _folder_name(spec, python)
        elsewhere = "; XDG_CACHE_HOME chooses another folder"
        with os_errors(f"{root}: environments of OpenCV can't be made there", elsewhere):
            root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(folder.name + ".lock")):
            # A link to a Python that was removed since does not exist.
            if not (_is_ready(folder, requirements) and _python_in(folder).exists()):
                _make(folder, python, requirements)
        return Interpreter(str(_python_in(folder)), code)


def _is_ready(folder: Path, requirements: list[str]) -> bool:
    """Return whether the environment was made whole, and of what is needed today."""
    mark = folder / "ready"
    return mark.exists() and mark.read_text(encoding="utf-8") == json.dumps(requirements)


def copy_package(folder: Path) -> Path:
    """Copy this package into `folder`, by itself, and return `folder`.

    Beside an installed package lie others, OpenCV among them, which no environment may see.
    """
    source = Path(conformance.__file__).parent
    ignored = shutil.ignore_patterns("selftest", "_fixtures", "__pycache__")
    try:
        shutil.copytree(source, folder / "conformance", ignore=ignored)
    except OSError as error:  # a shutil.Error, too, which lists what could not be copied
        why = (
            "no space left"
            if "No space left" in str(error)
            else error.strerror or "not all was copied"
        )
        raise ConformanceError(
            f"{folder}: can't be written ({why}); TMPDIR chooses another folder"
        ) from error
    return folder


def _requirement(spec: str) -> tuple[str, Version]:
    """Return what pip is asked for, and the version it is of."""
    path = Path(spec)
    if spec.endswith(".whl"):
        if not path.is_file():
            raise ConformanceError("there is no such wheel; give the path of one, or a version")
        return str(path.resolve()), _version_of_wheel(path)
    exact = spec if spec.count(".") >= 3 else f"{spec}.*"
    return f"{DISTRIBUTION}=={exact}", _version(spec)


def _version_of_wheel(path: Path) -> Version:
    try:
        return parse_wheel_filename(path.name)[1]
    except ValueError:  # an unfit name, or version in it
        raise ConformanceError(
            "not named as a wheel is: name-version-python-abi-platform.whl, as pip downloads it"
        ) from None


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise ConformanceError(
            f"not a version; give one of {DISTRIBUTION}'s, such as 4.12.0.88, or a wheel's path"
        ) from None


def _folder_name(spec: str, python: str) -> str:
    name = spec
    if spec.endswith(".whl"):
        path = Path(spec).resolve()
        name = f"{path.stem}-{path.stat().st_mtime_ns:x}"
    major, minor = _python_version(python) or (0, 0)
    return f"{name}-py{major}.{minor}"


def _find_python(newest: tuple[int, int]) -> str:
    """Return this Python, if it is old enough, or else the newest on the PATH that is."""
    minors = range(newest[1], _OLDEST_PYTHON[1] - 1, -1)
    found = (shutil.which(f"python3.{minor}") for minor in minors)
    for candidate in filter(None, (sys.executable, *found)):
        version = _python_version(candidate)
        if version is not None and _OLDEST_PYTHON <= version <= newest:
            return candidate
    limit = f"{newest[0]}.{newest[1]}"
    raise ConformanceError(
        f"it needs Python {limit} or older, and no python{limit} on the PATH runs; with "
        f"pyenv: PATH=$PATH:$(pyenv prefix {limit})/bin python -m conformance ..."
    )


def _python_version(python: str) -> Optional[tuple[int, int]]:
    """Return (major, minor), or None for one that does not run, such as a pyenv shim of none."""
    if python == sys.executable:
        return sys.version_info[:2]
    ending = run_child([python, "-c", "import sys; print(*sys.version_info[:2])"])
    major, _, minor = ending.output.partition(" ")
    return (int(major), int(minor)) if ending.code == 0 else None


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _make(folder: Path, python: str, requirements: list[str]) -> None:
    # Wheels only: building OpenCV from its sources takes hours.
    install = ["install", "--quiet", "--only-binary", ":all:", *requirements]
    target = str(_python_in(folder))
    uv = {
        "uv can't make it": ["uv", "venv", "--quiet", "--python", python, str(folder)],
        "uv can't install it": ["uv", "pip", *install, "--python", target],
    }
    pip = {
        f"can't make the environment {folder}": [python, "-m", "venv", str(folder)],
        f"pip can't install {requirements[0]}": [target, "-m", "pip", *install],
    }
    if not shutil.which("uv") or _failure(uv, folder):
        # pip, too, where uv could not: it may be told of another index, and says what is wrong.
        failure = _failure(pip, folder)
        if failure:
            shutil.rmtree(folder, ignore_errors=True)
            raise ConformanceError(failure)
    (folder / "ready").write_text(json.dumps(requirements), encoding="utf-8")


def _failure(steps: dict[str, list[str]], folder: Path) -> str:
    """Make the folder anew in such steps, {what can't be done otherwise: command}."""
    shutil.rmtree(folder, ignore_errors=True)
    environment = child_environment(folder, PIP_DISABLE_PIP_VERSION_CHECK="1")
    for failure, command in steps.items():
        ending = run_child(command, _TIMEOUT, environment)
        if ending.code is None or ending.signal:
            return f"{failure}: its process {ending}"
        if ending.code != 0:
            return f"{failure}: {_error(ending.log or ending.output)}"
    return ""


def _error(output: str) -> str:
    """Return pip's own words: its first error, of a list of versions only the last ones."""
    lines = output.strip().splitlines() or ["no message"]
    error = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return re.sub(r"from versions: (?:[^,)]+, )*((?:[^,)]+, ){6}[^,)]+\))", r"newest: \1", error)
