"""diversity: how many classes each model tells apart (needs TensorFlow)"""

from __future__ import annotations

import argparse

from conformance.cli import BAD, OK
from conformance.cli.options import Arguments, add_options, chosen_models
from conformance.pack.builder import require_tensorflow
from conformance.pack.request import keras_flavour


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `diversity` takes."""
    add_options(parser.add_argument, "models", "--weights")


def main(arguments: Arguments) -> int:
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
