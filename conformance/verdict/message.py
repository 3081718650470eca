"""A failed judgement in words: enough to understand it and to run it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from conformance.pack.labels import imagenet_labels

from .judgement import Judgement, Top


@dataclass(frozen=True)
class Context:
    """Where a judgement was made.

    engine: such as "classic engine", with the importer before it unless that is the usual one;
    empty where OpenCV took no part (freezing).
    labels: names of the classes, by default ImageNet's; () where they are not known. shape: of one
    image's output where it is a map of values, which has no classes.
    """

    model: str
    opencv: str
    engine: str
    command: str
    labels: Optional[Sequence[str]] = None
    shape: Optional[Sequence[int]] = None


def failure_message(judgement: Judgement, context: Context, diagnosis: Sequence[str] = ()) -> str:
    """Return what went wrong, where it is worst, what would have passed, and how to run it again.

    Several lines; the first is a summary. diagnosis: lines that say which node is to blame.
    """
    names = imagenet_labels() if context.labels is None else context.labels
    lines = [_summary(judgement, context), _place(judgement, names, context.shape)]
    lines += [] if context.shape else _tops(judgement, names)
    lines += [_would_pass(judgement), *diagnosis, f"again: {context.command}"]
    return "\n  ".join(line for line in lines if line)


def class_name(index: int, names: Sequence[str]) -> str:
    """Return ``'fox squirrel' (335)``: the first of the class's `names` and its number."""
    if index >= len(names):
        return f"class {index}"
    return f"{names[index].split(',')[0]!r} ({index})"


def _summary(judgement: Judgement, context: Context) -> str:
    where = f"OpenCV {context.opencv}, {context.engine}" if context.engine else judgement.who
    observed, allowed = f"{judgement.observed:.3g}", f"{judgement.allowed:.3g}"
    output = f" (output {judgement.output!r})" if judgement.output else ""
    text = f"{context.model}{output} on {where}: {judgement.metric} is {observed}"
    text += f", allowed {allowed}"
    parts = []
    if judgement.multiple is not None:
        parts.append(f"{judgement.multiple:g} x the noise floor of {judgement.noise:.3g}")
    parts += [judgement.reason] if judgement.reason else []
    return f"{text} ({'; '.join(parts)})" if parts else text


def _place(judgement: Judgement, names: Sequence[str], shape: Optional[Sequence[int]]) -> str:
    if judgement.input is None:
        return ""
    text = f"worst input {judgement.input!r}"
    if judgement.position is not None and shape:
        at = np.unravel_index(judgement.position, tuple(shape))
        text += f", at [{', '.join(map(str, at))}] of {' x '.join(map(str, shape))}"
    elif judgement.position is not None:
        name = class_name(judgement.position, names)
        text += f", {name if judgement.position >= len(names) else f'class {name}'}"
    if judgement.values is not None:
        text += f": {judgement.values[0]:.9g}, should be {judgement.values[1]:.9g}"
    return text


def _tops(judgement: Judgement, names: Sequence[str]) -> list[str]:
    if not judgement.candidate_top:
        return []
    sides = ((judgement.who, judgement.candidate_top), ("reference", judgement.truth_top))
    width = max(len(name) for name, _ in sides)
    return [f"top-5 of {name:<{width}}: {_ranking(top, names)}" for name, top in sides]


def _ranking(top: Top, names: Sequence[str]) -> str:
    return ", ".join(f"{value:.6f} {class_name(index, names)}" for index, value in top)


def _would_pass(judgement: Judgement) -> str:
    if judgement.allowed == 0:
        return ""
    if not math.isfinite(judgement.observed):
        return "no tolerance would have passed"
    if judgement.required is None:
        return f"would have passed if {judgement.observed:.3g} were allowed"
    multiple = _round_up(judgement.required)
    return f"would have passed with a multiple of {multiple:g} in fixtures/tolerances.toml"


def _round_up(value: float) -> float:
    """Return `value` rounded up to two significant digits, so that it does pass."""
    if value <= 0:
        return 0.0
    step: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
