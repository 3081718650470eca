"""The options that the suite adds to pytest, and what they say."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Callable, Optional

import pytest

from conformance.cli.options import importer_list
from conformance.errors import ConformanceError
from conformance.imagenet import options as asking
from conformance.own_models import FORMATS, MODELS_FILE, OPTIONS, Asked, Chosen, OwnModel, choose
from conformance.pack.formats import IMPORTERS
from conformance.pack.request import keras_flavour
from conformance.pack.store import default_packs
from conformance.session import Session
from conformance.verdict.expectations import load_known_failures

from . import timing_runs as recording

_DEFAULTS = {
    "--weights": "synthetic",
    "--graph": "opencv",
    "--importer": "tensorflow",
    "--target": "cpu",
}


def add_options(parser: pytest.Parser) -> None:
    """Add the suite's options to pytest's."""
    group = parser.getgroup("conformance", "conformance of OpenCV DNN with TensorFlow")
    add = group.addoption
    add("--packs", metavar="DIR", help="folder of reference packs (default: the user's cache)")
    add(
        "--weights",
        default=_DEFAULTS["--weights"],
        metavar="WHICH",
        help="synthetic (default), imagenet, or a folder or file of weights",
    )
    add(
        "--graph",
        default=_DEFAULTS["--graph"],
        choices=("opencv", "raw"),
        help="opencv: passes applied (default); raw: the tutorial's recipe, unmodified",
    )
    add(
        "--importer",
        default=_DEFAULTS["--importer"],
        metavar="LIST",
        help=f"OpenCV's importers, comma-separated: {', '.join(IMPORTERS)} (default: the first)",
    )
    add(
        "--engine",
        metavar="LIST",
        help="engines, comma-separated, or default: OpenCV's own choice (not given: all)",
    )
    add("--target", default=_DEFAULTS["--target"], help="OpenCV's target (default: cpu)")
    for switch in ("winograd", "fusion"):
        add(
            f"--{switch}",
            metavar="on,off",
            help=f"judge with {switch} on, off, or both (default: as the user gets it)",
        )
    add("--threads", type=int, metavar="N", help="threads of OpenCV (default: its own choice)")
    add(
        "--candidate-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest time one model may take in OpenCV before it counts as hung (default: 600)",
    )
    add(
        "--results",
        metavar="DIR",
        help="write DIR/<opencv version>-[<importer>-]<engine>.jsonl, and times to DIR/bench-…",
    )
    add("--known-failures", metavar="FILE", help="TOML file used instead of the suite's own")
    _add_model_options(add)
    recording.add_options(group)
    asking.add_options(add)


def _add_model_options(add: Callable[..., None]) -> None:
    add(
        "--model",
        action="append",
        default=[],
        metavar="PATH",
        help="judge this model, and of the others only those that are given too: "
        f"{FORMATS}, or a name (of the registry, {MODELS_FILE} or a pack); repeatable",
    )
    for name, settings in OPTIONS.items():
        add(name, **settings)


def asked_models(config: pytest.Config) -> Chosen:
    """Return the models that the options ask for; raise ConformanceError for a bad one."""
    option = config.getoption
    asked = Asked(
        option("--model"),
        option("--model-preprocess"),
        option("--model-labels"),
        option("--model-size"),
        option("--models-file"),
    )
    return choose(asked, _packs_root(config))


def _extended(config: pytest.Config) -> bool:
    expression = config.option.markexpr or ""
    return "extended" in expression and "not extended" not in expression


def _packs_root(config: pytest.Config) -> Path:
    packs = config.getoption("--packs")
    return Path(packs).expanduser().resolve() if packs else default_packs()


def new_session(config: pytest.Config) -> Session:
    """Return the session that the options ask for; raise ConformanceError for a bad one."""
    option = config.getoption
    engines = option("--engine")
    known_failures = option("--known-failures")
    models = asked_models(config)
    session = Session(
        packs_root=_packs_root(config),
        weights=option("--weights"),
        graph=option("--graph"),
        keras=keras_flavour(),
        importers=importer_list(option("--importer")),
        engines=engines.split(",") if engines else None,
        target=option("--target"),
        winograd=_switch("--winograd", option("--winograd")),
        fusion=_switch("--fusion", option("--fusion")),
        threads=option("--threads"),
        timeout=option("--candidate-timeout"),
        verbose=config.option.verbose > 0,
        known_failures=load_known_failures(
            Path(known_failures) if known_failures else None, tuple(models.own)
        ),
        own=models.own,
        chosen=models.names,
        extended=_extended(config),
    )
    session.capability  # noqa: B018  # a missing cv2 is reported before anything is collected
    return session


def _switch(option: str, value: Optional[str]) -> list[Optional[bool]]:
    if value is None:
        return [None]
    settings = value.split(",")
    if not set(settings) <= {"on", "off"}:
        raise ConformanceError(f"{option} {value!r}: give on, off, or on,off")
    return [setting == "on" for setting in settings]


# What decides a case's answer; the engine and the model are in its name.
_REPEATED = (
    *("--packs", "--weights", "--graph", "--importer", "--engine", "--target", "--threads"),
    *("--winograd", "--fusion"),
)


def rerun_command(item: pytest.Item, config: pytest.Config, own: Optional[OwnModel]) -> str:
    """Return the command that runs just this case again, with the options given now.

    own: the case's model, if it is the user's.
    """
    given = [(name, config.getoption(name)) for name in _REPEATED]
    kept = [f"{name}={value}" for name, value in given if value not in (None, _DEFAULTS.get(name))]
    location = os.path.relpath(item.path, config.invocation_params.dir)
    model = ["--model", *own.words] if own else []
    return shlex.join(["pytest", f"{location}::{item.name}", *model, *kept])
