"""The options that several commands share, and their exit statuses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from conformance.errors import ConformanceError
from conformance.models import MODELS, get_model
from conformance.own_models import OPTIONS, Asked, Chosen, choose
from conformance.pack.formats import IMPORTERS
from conformance.pack.store import default_packs

Arguments = argparse.Namespace


def no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


def packs_option(parser: argparse.ArgumentParser) -> None:
    """Add --packs, which every command that uses packs takes."""
    parser.add_argument(
        "--packs",
        type=Path,
        default=default_packs(),
        metavar="DIR",
        help="folder of reference packs (default: %(default)s)",
    )


def models_option(parser: argparse.ArgumentParser) -> None:
    """Add the positional MODEL…, all models where none is given."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all models")


def weights_option(parser: argparse.ArgumentParser) -> None:
    """Add --weights."""
    parser.add_argument(
        "--weights",
        default="synthetic",
        metavar="W",
        help="synthetic (default), imagenet, or a file or folder with <model>.weights.h5",
    )


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what says more of a model of the user's own, where a path is given for MODEL."""
    for name, settings in OPTIONS.items():
        parser.add_argument(name, **settings)


def chosen(arguments: Arguments, models: Sequence[str]) -> Chosen:
    """Return what `models`, names or paths, mean; see own_models.choose."""
    asked = Asked(
        models,
        arguments.model_preprocess,
        arguments.model_labels,
        arguments.model_size,
        arguments.models_file,
    )
    return choose(asked, arguments.packs)


def importer_list(text: str) -> list[str]:
    """Return the importers of a comma-separated list; raise ConformanceError for an unknown one."""
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in IMPORTERS:
            raise ConformanceError(
                f"--importer {text!r}: {name!r} is none of {', '.join(IMPORTERS)}"
            )
    return names


def count(text: str) -> int:
    """Return the number that an option was given; for argparse, which tells the option's name."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def chosen_models(names: Sequence[str]) -> list[str]:
    """Return the names without repetition, all of the registry's where there are none.

    Raises ConformanceError with the nearest name for an unknown one.
    """
    return list(dict.fromkeys(get_model(name).name for name in names)) or list(MODELS)
