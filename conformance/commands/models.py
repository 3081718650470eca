"""The commands on the registry: list and diversity."""

from __future__ import annotations

import argparse

from conformance.cli import BAD, OK
from conformance.cli.options import Arguments, add_options, chosen_models
from conformance.cli.printing import print_table
from conformance.models import EXTENDED, MODELS, ModelSpec
from conformance.pack.builder import require_tensorflow
from conformance.pack.request import keras_flavour


def diversity_options(parser: argparse.ArgumentParser) -> None:
    """Add what `diversity` takes."""
    add_options(parser.add_argument, "models", "--weights")


def run_list(_: Arguments) -> int:
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


def run_diversity(arguments: Arguments) -> int:
    """Print how many classes each model tells apart; return BAD when one tells too few."""
    models = chosen_models(arguments.models)
    require_tensorflow(keras_flavour(), "diversity")
    from conformance.reference.weights.diversity import diversity  # needs the Keras models

    print(f"{'model':<18} classes  median  lowest  highest top-1 probability, 16 unseen crops")
    status = OK
    for name in models:
        d = diversity(name, arguments.weights)
        figures = (
            f"{d.classes:>7}  {d.median_top1:6.3f}  {d.lowest_top1:6.3f}  {d.highest_top1:7.3f}"
        )
        print(f"{name:<18} {figures}  {'ok' if d.sufficient else 'too much alike'}", flush=True)
        status = status if d.sufficient else BAD
    return status
