"""The answers in words, in lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.processes.machine import threads_text

from .answers import Answer, Best, Difference
from .explanation import Explanation

WIDTH = 80
# What the number beside a class is, where it is no confidence.
_NUMBER = {"values": "value"}
SYNTHETIC = "synthetic weights know no classes"


def answer_lines(answer: Answer) -> Iterator[str]:
    """Yield what the tutorial prints of a framework's answer, and the four next best classes."""
    yield f"{answer.framework} {answer.version}, {answer.how}, {threads_text(answer.threads)}"
    yield f"  input blob shape: {answer.input_shape}"
    yield f"  output shape: {answer.output_shape}"
    yield f"  class ID  {_NUMBER.get(answer.kind, 'confidence'):>10}  label"
    yield from (_class_line(one) for one in answer.best)
    yield f"  inference time: {answer.ms:.2f} ms"


def _class_line(one: Best) -> str:
    line = f"  {one.class_id:>8}  {one.confidence:>10.4f}  {one.label}".rstrip()
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def difference_line(opencv: Answer, tensorflow: Answer, apart: Difference) -> str:
    """Return how far apart the two answers are."""
    same = opencv.best[0].class_id == tensorflow.best[0].class_id
    top = "same best class" if same else "ANOTHER best class"
    return f"Difference of the outputs: L1 {apart.l1:.2e}, L-inf {apart.linf:.2e}; {top}"


def explanation_lines(found: Explanation, weights: str) -> Iterator[str]:
    """Yield the table of causes. weights: as --weights has them."""
    columns = "{:<15} {:<18} {:<18} {:>8} {:>8} {:>7}"
    yield columns.format("cause", "from", "to", "L1", "L-inf", "levels")
    for share in found.rows():
        levels = f"{share.levels.mean:.3f}" if share.levels else ""
        moved = (f"{share.moved.l1:.1e}", f"{share.moved.linf:.1e}")
        yield columns.format(share.cause, share.before, share.after, *moved, levels).rstrip()
    yield "(L1, L-inf: of the outputs; levels: mean |difference| of the pixels, of 255)"
    float32 = found.float32
    yield "Pixels converted to float32 before resizing, as in the tutorial, against uint8:"
    if float32.levels:
        yield (
            f"  {float32.levels.mean:.3f} levels, at most {float32.levels.greatest:.3f}; outputs "
            f"L1 {float32.moved.l1:.1e}, L-inf {float32.moved.linf:.1e}"
        )
    if weights == "synthetic":
        # Measured on mobilenet: 0.26 levels move its softmax by 1.8, densenet121's by 0.1.
        yield "Synthetic weights answer to such changes far more than trained ones do."


def caption_lines(answer: Answer, weights: str = "") -> list[str]:
    """Return what is drawn on a picture: prediction and time, as the tutorial draws them.

    weights: as --weights has them, of a model of the registry.
    """
    best = answer.best[0]
    name = best.label or f"class {best.class_id}"
    lines = [f"Inference time: {answer.ms:.2f} ms", f"{name}: {best.confidence:.4f}"]
    return [*lines, SYNTHETIC] if weights == "synthetic" else lines
