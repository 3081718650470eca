"""The options that several commands, or a command and pytest, take: each declared once.

Commands add them by ``parser.add_argument``, the plugin by pytest's ``addoption``.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from conformance import own_models
from conformance.errors import ConformanceError
from conformance.models import MODELS, get_model
from conformance.own_models import Asked, Chosen, choose
from conformance.pack.formats import IMPORTERS
from conformance.pack.request import GRAPHS
from conformance.pack.store import default_packs

Arguments = argparse.Namespace


def count(text: str) -> int:
    """Return a number of things; ValueError says what to give, as for the next ones."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("give 1 or more")
    return int(text)


def positive(text: str) -> float:
    """Return a number above 0, and no infinite one."""
    try:
        if 0 < float(text) < math.inf:  # a NaN neither: nothing lies above it
            return float(text)
    except ValueError:
        pass
    raise ValueError("give a number above 0")


def folder(text: str) -> Path:
    """Return the path of a folder, which need not be there."""
    path = Path(text).expanduser()
    try:
        if path.exists() and not path.is_dir():
            raise ValueError("it is a file; give a folder")
    except OSError as error:
        raise ValueError(f"{error.strerror}; give a folder") from None
    return path


def names(text: str) -> list[str]:
    """Return the words of a comma-separated list, each once."""
    return list(dict.fromkeys(text.split(",")))


def importers(text: str) -> list[str]:
    """Return the importers of a list."""
    for name in names(text):
        if name not in IMPORTERS:
            raise ValueError(f"{name!r} is none of {', '.join(IMPORTERS)}")
    return names(text)


def versions(text: str) -> list[str]:
    """Return OpenCV versions: of a comma-separated list, or those of a tox.ini's wheels."""
    if not text.endswith(".ini"):
        return [version.strip() for version in text.split(",") if version.strip()]
    try:
        found = _ENVIRONMENTS.findall(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror})") from None
    if not found:
        raise ValueError("it has no line such as cv4.12.0: opencv-python-headless==4.12.0.88")
    return found


_ENVIRONMENTS = re.compile(r"^\s*cv([\d.]+): opencv-python", re.MULTILINE)


def switch(text: str) -> list[Optional[bool]]:
    """Return the states of a list of on and off."""
    if not set(names(text)) <= {"on", "off"}:
        raise ValueError("give on, off, or on,off")
    return [state == "on" for state in names(text)]


# By name, as argparse and pytest both take them. A default that is a function is called when the
# option is added. `ENGINE` is the option --engine of a command that runs one.
OPTIONS: dict[str, Mapping[str, Any]] = {
    "--packs": {
        "type": folder,
        "default": default_packs,
        "metavar": "DIR",
        "help": "folder of reference packs (default: %(default)s)",
    },
    "--weights": {
        "default": "synthetic",
        "metavar": "W",
        "help": "synthetic (default), imagenet, or a file or folder with <model>.weights.h5",
    },
    "--graph": {
        "default": "opencv",
        "choices": GRAPHS,
        "help": "opencv: passes applied (default); rewritten: those, and what OpenCV fails at put "
        "in other words; raw: the tutorial's recipe, unmodified",
    },
    "--importer": {
        "dest": "importers",
        "type": importers,
        "metavar": "LIST",
        "help": "OpenCV's importers, comma-separated: tensorflow, tflite, onnx (default: the first "
        f"of {', '.join(IMPORTERS)} that it has)",
    },
    "--engine": {
        "dest": "engines",
        "type": names,
        "metavar": "LIST",
        "help": "engines, comma-separated, or default: OpenCV's own choice (not given: all)",
    },
    "--target": {"default": "cpu", "help": "OpenCV's target (default: cpu)"},
    "--cpu-disable": {
        "action": "append",
        "default": [],
        "metavar": "LIST",
        "help": "judge as on an older CPU: features that OpenCV is to do without, such as "
        "AVX512-SKX,AVX2,FP16; baseline: all that can be switched off; each: the levels of this "
        "machine; repeatable",
    },
    **{
        f"--{name}": {
            "type": switch,
            "default": [None],
            "metavar": "on,off",
            "help": f"judge with {name} on, off, or both (default: as the user gets it)",
        }
        for name in ("winograd", "fusion")
    },
    "--threads": {
        "type": count,
        "metavar": "N",
        "help": "threads of OpenCV (default: its own choice)",
    },
    "--candidate-timeout": {
        "type": positive,
        "default": 600.0,
        "metavar": "SECONDS",
        "help": "longest time one model may take in OpenCV before it counts as hung (default: 600)",
    },
    "--timeout": {"type": positive, "default": 600.0, "metavar": "SECONDS"},
    "--results": {"type": folder, "metavar": "DIR"},
    "--expect": {
        "type": versions,
        "default": [],
        "metavar": "VERSIONS",
        "help": "versions that should be there, comma-separated, or the tox.ini that names them",
    },
    "--batch": {
        "type": count,
        "default": 1,
        "metavar": "N",
        "help": "images in one inference, where times are taken (default: 1)",
    },
    "--generated": {
        "type": count,
        "metavar": "N",
        "help": "how many generated models (default: 1000); -m generated judges them",
    },
    "--generated-seed": {
        "type": int,
        "default": 0,
        "metavar": "S",
        "help": "draws other ones (default: 0)",
    },
    **own_models.OPTIONS,
}
ENGINE: dict[str, Any] = {
    "dest": "engine",
    "type": str,
    "default": "default",
    "metavar": "ENGINE",
    "help": "classic, new, or default: OpenCV's own choice",
}
OWN = tuple(own_models.OPTIONS)
# Those that decide an answer: the command that is printed with a failure repeats them.
DECIDING = (
    *("--engine", "--packs", "--weights", "--graph", "--importer", "--target", "--threads"),
    *("--cpu-disable", "--winograd", "--fusion", "--generated", "--generated-seed"),
)
# What it comes to on most OpenCVs where an option is not given, if that depends on OpenCV.
_USUAL = {"--importer": IMPORTERS[0]}


def add_option(
    add: Callable[..., Any], name: str, error: type[Exception] = ConformanceError, **settings: Any
) -> None:
    """Add an option: its entry of OPTIONS, if it has one, changed by `settings`.

    add: argparse's add_argument or pytest's addoption. error: raised for a bad value, with the
    option's name and the value before what its type says.
    """
    settings = {**OPTIONS.get(name, {}), **settings}
    if callable(settings.get("default")):
        settings["default"] = settings["default"]()
    if "type" in settings:
        settings["type"] = _checked(name, settings["type"], error)
    add(name, **settings)


def _checked(
    name: str, parse: Callable[[str], Any], error: type[Exception]
) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as why:
            raise error(f"{name} {text}: {why}") from None

    return checked


def add_options(add: Callable[..., Any], *names: str) -> None:
    """Add options of OPTIONS as they are; "models" is the positional MODEL…, all if none given."""
    for name in names:
        if name == "models":
            add("models", nargs="*", metavar="MODEL", help="names; default: all models")
        else:
            add_option(add, name)


def repeated(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield option and value, as one would type them, of those in DECIDING that are no default.

    values: by option; None is a default, too.
    """
    for name in DECIDING:
        default = _USUAL.get(name, OPTIONS[name].get("default"))
        value, default = (
            _listed(v) for v in (values[name], default() if callable(default) else default)
        )
        if value not in ([None], default):
            # One that is given several times is, else its values are a list.
            several = OPTIONS[name].get("action") == "append"
            for one in value if several else [",".join(map(_typed, value))]:
                yield name, one


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _typed(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def chosen(values: Mapping[str, Any], models: Sequence[str]) -> Chosen:
    """Return what `models`, names or paths, mean by the other options; see own_models.choose."""
    further = (name.lstrip("-").replace("-", "_") for name in OWN)
    return choose(Asked(models, *(values[name] for name in further)), values["packs"])


def chosen_models(names: Sequence[str]) -> list[str]:
    """Return the names without repetition, all of the registry's where there are none.

    Raises ConformanceError with the nearest name for an unknown one.
    """
    return list(dict.fromkeys(get_model(name).name for name in names)) or list(MODELS)
