"""Text on a picture that can be read whatever the picture is: small, huge, light, dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conformance.candidate import Array

# Pixels. A picture smaller than this is enlarged, if that keeps its longer side below the second.
_WIDTH, _LONGEST = 320, 1024
_SMALLEST_TEXT = 14
# Height of a line as a share of the picture's shorter side.
_TEXT_SHARE = 1 / 22
# What is left of the picture's brightness behind the text, which is white.
_SHADE = 0.25
_LINE = 1.7  # distance of lines, in heights of the text


def caption(cv2: Any, picture: Array, lines: Sequence[str]) -> Array:
    """Return a copy of a BGR picture, uint8 [H, W, 3], with `lines` at its top left.

    Small pictures are enlarged, narrow ones get a border, and a line that is too long is cut.
    OpenCV's fonts have ASCII only: other characters become "?".
    """
    texts = [line.encode("ascii", "replace").decode() for line in lines]
    drawn = _roomy(cv2, picture)
    height = _text_height(cv2, drawn, texts)
    scale, thick = _font(cv2, height)
    texts = [_cut(cv2, text, scale, thick, drawn.shape[1] - 2 * height) for text in texts]
    step = round(height * _LINE)
    wide = max(_width(cv2, text, scale, thick) for text in texts) + 2 * height
    box = drawn[: step * len(texts) + height, :wide]
    box[...] = box * _SHADE
    for index, text in enumerate(texts):
        place = (height, height // 2 + step * (index + 1) - (step - height) // 2)
        font, white = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
        cv2.putText(drawn, text, place, font, scale, white, thick, cv2.LINE_AA)
    return drawn


def _roomy(cv2: Any, picture: Array) -> Array:
    """Return a copy with room for the text: enlarged by whole pixels, or with a white border."""
    height, width = picture.shape[:2]
    factor = max(1, min(-(-_WIDTH // width), _LONGEST // max(height, width)))
    if factor > 1:
        size = (width * factor, height * factor)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
        height, width = picture.shape[:2]
    below, right = max(0, 4 * _SMALLEST_TEXT - height), max(0, _WIDTH - width)
    white, constant = (255, 255, 255), cv2.BORDER_CONSTANT
    copy: Array = cv2.copyMakeBorder(picture, 0, below, 0, right, constant, value=white)
    return copy


def _text_height(cv2: Any, picture: Array, texts: Sequence[str]) -> int:
    """Return the height of the text in pixels: a share of the picture's, less for long lines."""
    height = max(_SMALLEST_TEXT, round(min(picture.shape[:2]) * _TEXT_SHARE))
    scale, thick = _font(cv2, height)
    wide = max(_width(cv2, text, scale, thick) for text in texts)
    room = picture.shape[1] - 2 * height
    return int(max(_SMALLEST_TEXT, min(height, height * room // wide)))


def _font(cv2: Any, height: int) -> tuple[float, int]:
    """Return FONT_HERSHEY_SIMPLEX's scale and thickness for capitals of `height` pixels."""
    thick = max(1, round(height / 11))
    return float(cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, height, thick)), thick


def _width(cv2: Any, text: str, scale: float, thick: int) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0][0])


def _cut(cv2: Any, text: str, scale: float, thick: int, room: int) -> str:
    """Return the text, its middle left out where it is wider than `room` pixels.

    The confidence stands at its end.
    """
    kept = text
    head, tail = len(text), text.rpartition(":")[2]
    while _width(cv2, kept, scale, thick) > room and head > 1:
        head -= 1
        kept = f"{text[:head]}...{tail}"
    return kept
