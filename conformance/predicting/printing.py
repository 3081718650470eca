"""The answers in words, in lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from .answers import Answer, Best, Difference
from .explaining import Explanation

WIDTH = 80


def answer_lines(answer: Answer) -> Iterator[str]:
    """Yield what the tutorial prints of a framework's answer, and the four next best classes."""
    yield f"{answer.framework} {answer.version}, {answer.how}, {_threads(answer.threads)}"
    yield f"  input blob shape: {answer.input_shape}"
    yield f"  output shape: {answer.output_shape}"
    yield "  class ID  confidence  label"
    yield from (_class_line(one) for one in answer.best)
    yield f"  inference time: {answer.ms:.2f} ms"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _class_line(one: Best) -> str:
    line = f"  {one.class_id:>8}  {one.confidence:>10.4f}  {one.label}".rstrip()
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def difference_line(opencv: Answer, tensorflow: Answer, apart: Difference) -> str:
    """Return how far apart the two answers are."""
    same = opencv.best[0].class_id == tensorflow.best[0].class_id
    top = "same best class" if same else "ANOTHER best class"
    return f"Difference of the outputs: L1 {apart.l1:.2e}, L-inf {apart.linf:.2e}; {top}"


def explanation_lines(found: Explanation) -> Iterator[str]:
    """Yield the table of causes."""
    columns = "{:<23} {:<19} {:<19} {:>8} {:>8}"
    yield columns.format("cause", "from", "to", "L1", "L-inf")
    for cause, before, after, moved in found.rows():
        yield columns.format(cause, before, after, f"{moved.l1:.1e}", f"{moved.linf:.1e}")
    yield (
        f"Converted to float32 before resizing, instead of uint8: L1 {found.float32.l1:.1e}, "
        f"L-inf {found.float32.linf:.1e}"
    )


def caption_lines(answer: Answer) -> list[str]:
    """Return what is drawn on a picture: prediction and time, as the tutorial draws them."""
    best = answer.best[0]
    name = best.label or f"class {best.class_id}"
    return [f"Inference time: {answer.ms:.2f} ms", f"{name}: {best.confidence:.4f}"]
