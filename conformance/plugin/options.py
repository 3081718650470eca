"""The options that the suite adds to pytest, and what they say."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any, Optional

import pytest

from conformance.cli.options import DECIDING, OWN, add_option, chosen, repeated
from conformance.errors import ConformanceError
from conformance.generated.outcomes import MODEL
from conformance.generated.store import COUNT, SMALL
from conformance.imagenet.options import OPTIONS as IMAGENET
from conformance.own_models import FORMATS, MODELS_FILE, Chosen, OwnModel
from conformance.pack.request import keras_flavour
from conformance.processes.machine import cores, sharing_workers
from conformance.session import Session, choices_of
from conformance.verdict.expectations import load_known_failures

from . import PROBING, imagenet_runs, names_mark, timing_runs

# Beside those that decide an answer.
_SHARED = ("--candidate-timeout", "--batch", *OWN)
_FURTHER: dict[str, dict[str, Any]] = {
    "--results": {
        "help": "write DIR/<opencv version>-[<importer>-]<engine>.jsonl, and times to DIR/bench-…",
    },
    "--known-failures": {
        "metavar": "FILE",
        "help": "TOML file used instead of the suite's own",
    },
    "--known-defects": {
        "metavar": "FILE",
        "help": "the same of generated models",
    },
    "--model": {
        "action": "append",
        "default": [],
        "metavar": "PATH",
        "help": "judge this model, and of the others only those that are given too: "
        f"{FORMATS}, or a name (of the registry, {MODELS_FILE} or a pack); repeatable",
    },
}


def add_options(parser: pytest.Parser) -> None:
    """Add the suite's options to pytest's."""
    group = parser.getgroup("conformance", "conformance of OpenCV DNN with TensorFlow")
    add = partial(add_option, group.addoption, error=pytest.UsageError)
    for name in (*DECIDING, *_SHARED):
        add(name)
    for name, settings in {**_FURTHER, **IMAGENET}.items():
        add(name, **settings)


def asked_models(config: pytest.Config) -> Chosen:
    """Return the models that the options ask for; raise ConformanceError for a bad one."""
    return chosen(vars(config.option), config.option.model)


def shared_threads(config: pytest.Config) -> Optional[int]:
    """Return the threads of each OpenCV where several workers of pytest-xdist share the cores."""
    asked: Optional[int] = getattr(config.option, "numprocesses", None)
    workers = max(sharing_workers(), asked or 1)  # those of this one, or those that it starts
    return max(1, cores() // workers) if workers > 1 else None


def new_session(config: pytest.Config) -> Session:
    """Return the session that the options ask for; raise ConformanceError for a bad one."""
    models = asked_models(config)
    known = config.getoption("--known-failures")
    session = Session(
        choices_of(
            vars(config.option),
            models,
            packs=Path(os.path.realpath(config.getoption("--packs"))),
            keras=keras_flavour(),
            verbose=config.option.verbose > 0,
            threads=config.option.threads or shared_threads(config),
            known_failures=load_known_failures(Path(known) if known else None, tuple(models.own)),
            extended=names_mark(config, "extended"),
        ),
        probing=config.stash.get(PROBING, None),
    )
    # A missing cv2, or an importer that does not read a file, is told before anything is collected.
    session.variants()
    return session


_SESSION = pytest.StashKey[Session]()


def session_of(config: pytest.Config) -> Session:
    """Return the session's state, made on first use; raise pytest.UsageError for bad options."""
    if _SESSION not in config.stash:
        try:
            config.stash[_SESSION] = new_session(config)
        except ConformanceError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_SESSION]


def names_generated(config: pytest.Config) -> bool:
    """Return whether generated models were asked for by name."""
    return names_mark(config, MODEL) or config.getoption("--generated") is not None


def count_generated(config: pytest.Config) -> int:
    """Return how many generated models a run judges, 0 where it is about something else.

    That is a run of models of the user's own, of a marker that is none of theirs, or of switches
    only: generated models are judged as the user gets OpenCV.
    """
    session = session_of(config)
    if all(variant.switches for variant in session.variants()):
        return 0
    asked: Optional[int] = config.getoption("--generated")
    if asked is not None:
        return asked
    if names_generated(config):
        return COUNT
    return 0 if config.option.markexpr or session.choices.chosen else SMALL


def check_left_out(config: pytest.Config) -> None:
    """Raise pytest.UsageError for options typed now that are about what the run leaves out."""
    typed = {str(word).partition("=")[0] for word in config.invocation_params.args}
    parts = (
        (imagenet_runs.MARK, imagenet_runs.is_asked, tuple(IMAGENET), "the evaluation on ImageNet"),
        (timing_runs.MARK, timing_runs.is_asked, ("--batch",), "inference times"),
        (MODEL, count_generated, ("--generated-seed", "--known-defects"), "generated models"),
    )
    for mark, is_asked, names, what in parts:
        given = [name for name in names if name in typed]
        if given and not is_asked(config):
            raise pytest.UsageError(
                f"{', '.join(given)}: this run leaves out {what}: ask for it with -m {mark}, or "
                f"leave {given[0]} out"
            )


def check_evaluated(config: pytest.Config) -> None:
    """Raise pytest.UsageError where an evaluation is asked for of models it can't be made of."""
    session = session_of(config)
    own = [name for name in session.models if name in session.choices.own]
    if own == session.models:
        raise pytest.UsageError(
            f"{', '.join(own)}: the evaluation on ImageNet is of models of the registry only, as "
            "it takes their preprocessing and classes; name one besides, or leave imagenet out"
        )


def rerun_command(item: pytest.Item, config: pytest.Config, own: Optional[OwnModel]) -> str:
    """Return the command that runs just this case again, with the options given now.

    own: the case's model, if it is the user's.
    """
    options = {name: config.getoption(name) for name in DECIDING}
    if item.get_closest_marker(MODEL) and count_generated(config) != SMALL:
        options["--generated"] = count_generated(config)  # asked for by -m, which is not repeated
    given = repeated(options)
    kept = [f"{name}={value}" for name, value in given]
    location = os.path.relpath(item.path, config.invocation_params.dir)
    model = ["--model", *own.words] if own else []
    return shlex.join(["pytest", f"{location}::{item.name}", *model, *kept])
