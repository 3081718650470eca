"""The options that set preprocessing by hand, and what they ask for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

from conformance.errors import ConformanceError
from conformance.inputs.modes import BlobArguments
from conformance.inputs.settings import TUTORIAL, TUTORIAL_CROP, Settings, numbers_text


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


def settings_of(given: argparse.Namespace, model: str, default: Settings) -> Settings:
    """Return what the options ask for. default: how the model's input is made where they don't.

    Raises ConformanceError naming the option that does not fit.
    """
    if not given.default_preprocess:
        default = replace(default, arguments=TUTORIAL, crop=TUTORIAL_CROP, resize=None)
    size = default.size
    asked = {
        "scalefactor": given.scale,
        "mean": _triple(given.mean),
        "swapRB": given.rgb,
        "std": _triple(given.std),
    }
    arguments = replace(
        default.arguments, **{name: v for name, v in asked.items() if v is not None}
    )
    _check(arguments)
    wanted = tuple(given.size) if given.size else size
    if wanted != size:
        raise ConformanceError(
            "--size {} {}: {} takes {} x {} pixels; leave --size out, or use --resize for a step "
            "before".format(*wanted, model, *size)
        )
    if given.resize and min(given.resize) < 1:
        raise ConformanceError("--resize {} {}: give 1 pixel or more".format(*given.resize))
    return replace(
        default,
        arguments=arguments,
        crop=default.crop if given.crop is None else given.crop,
        resize=tuple(given.resize) if given.resize else default.resize,
        float32=given.float32,
    )


def _triple(values: Optional[Sequence[float]]) -> Optional[tuple[float, ...]]:
    return None if values is None else tuple(values)


def _check(arguments: BlobArguments) -> None:
    numbers = {
        "--scale": (arguments.scalefactor,),
        "--mean": arguments.mean,
        "--std": arguments.std or (),
    }
    for option, values in numbers.items():
        if not all(math.isfinite(value) for value in values):
            raise ConformanceError(f"{option} {numbers_text(values)}: give finite numbers")
        if 0 in values and option != "--mean":
            raise ConformanceError(f"{option} {numbers_text(values)}: 0 would leave nothing")
