"""The options that set preprocessing by hand, and what they ask for."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import Any

from conformance.errors import ConformanceError
from conformance.inputs.preprocessing import TUTORIAL, Preprocessing, numbers_text


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that set preprocessing by hand."""
    group = parser.add_argument_group(
        "preprocessing",
        "What is not given is the model's default, centre crop and by its mode (see `list`): tf: "
        "RGB, mean 127.5 127.5 127.5, scale 1/127.5; caffe: BGR, mean 103.939 116.779 123.68, "
        "scale 1; torch: RGB, mean 123.675 116.28 103.53, scale 1/255, std 0.229 0.224 0.225. "
        "With --no-default-preprocess it is the tutorial's: scale 1, mean 0 0 0, no std, no crop, "
        "RGB. Order: float32, resize, crop, subtract the mean, multiply by scale, divide by std.",
    )
    add = group.add_argument
    add(
        "--default-preprocess",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start from the model's preprocessing, or from the tutorial's neutral one",
    )
    add("--scale", type=float, metavar="S", help="what (pixel - mean) is multiplied by")
    triple: dict[str, Any] = {"type": float, "nargs": 3, "metavar": ("A", "B", "C")}
    add("--mean", **triple, help="subtracted, in the order of the blob's channels (RGB or BGR)")
    add("--std", **triple, help="divided by after that, in the same order; 1 1 1 is none")
    add(
        "--crop",
        action=argparse.BooleanOptionalAction,
        help="cover --size and cut out the centre, or stretch (default: the model's, crop)",
    )
    colours = group.add_mutually_exclusive_group()
    colours.add_argument("--rgb", dest="rgb", action="store_true", default=None, help="RGB blob")
    colours.add_argument("--bgr", dest="rgb", action="store_false", help="BGR blob")
    pair: dict[str, Any] = {"type": int, "nargs": 2, "metavar": ("H", "W")}
    add("--resize", **pair, help="stretch to this height and width first (default: no)")
    add("--size", **pair, help="height and width of the blob (default: the model's input)")
    add(
        "--float32",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="convert to float32 before resizing, as the tutorial's script py_to_py_mobilenet "
        "does; its test mode and the default do not",
    )


def chosen_preprocessing(
    given: argparse.Namespace, model: str, default: Preprocessing
) -> Preprocessing:
    """Return what the options ask for. default: how the model's input is made where they don't.

    Raises ConformanceError naming the option that does not fit.
    """
    if not given.default_preprocess:
        default = replace(TUTORIAL, size=default.size, grey=default.grey)
    names = ("scale", "mean", "std", "rgb", "crop", "resize", "size", "float32")
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    asked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    chosen = replace(default, **asked, mode="")
    _check(chosen)
    if chosen.size != default.size:
        raise ConformanceError(
            "--size {} {}: {} takes {} x {} pixels; leave --size out, or use --resize for a step "
            "before".format(*given.size, model, *default.size or ())
        )
    if given.resize and min(given.resize) < 1:
        raise ConformanceError("--resize {} {}: give 1 pixel or more".format(*given.resize))
    return chosen


def _check(chosen: Preprocessing) -> None:
    numbers = {"--scale": (chosen.scale,), "--mean": chosen.mean, "--std": chosen.std or ()}
    for option, values in numbers.items():
        if not all(math.isfinite(value) for value in values):
            raise ConformanceError(f"{option} {numbers_text(values)}: give finite numbers")
        if 0 in values and option != "--mean":
            raise ConformanceError(f"{option} {numbers_text(values)}: 0 would leave nothing")
