"""list: the models, with input, preprocessing and accuracy

It imports no more than the registry, so that it starts at once.
"""

from __future__ import annotations

import argparse

from conformance.cli import OK
from conformance.cli.printing import print_table
from conformance.models import EXTENDED, MODELS, ModelSpec


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing."""


def main(_: argparse.Namespace) -> int:
    """Print the registry, in at most 80 columns."""
    columns = ("model", ">input", "preprocessing", ">parameters", ">top-1 %", ">top-5 %")
    title = "ImageNet classifiers; accuracy as Keras publishes it"
    print_table(title, columns, [_model_row(spec, 3) for spec in MODELS.values()])
    print()
    title = "More of Keras Applications: pytest -m extended"
    print_table(title, columns, [_model_row(spec, 1) for spec in EXTENDED.values()])
    return OK


def _model_row(spec: ModelSpec, digits: int) -> tuple[str, ...]:
    published = ("-" if top is None else f"{top:.{digits}f}" for top in (spec.top1, spec.top5))
    size = f"{spec.size}x{spec.size}"
    return (spec.name, size, spec.mode, f"{spec.parameters:,}", *published)
