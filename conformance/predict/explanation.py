"""What an end-to-end difference is made of: one stage exchanged at a time.

One end is what a user of Keras does: ``load_img`` (Pillow decodes and resizes, bilinear), the
model's ``preprocess_input``, the Keras model in float32, or a user's own as it was saved. The other
is what a user of OpenCV does: ``cv2.imread``, ``blobFromImage``, the frozen graph in OpenCV.
Beginning with Keras' end, the
stages are exchanged for OpenCV's one after another, each kept for those that follow:

1. decoding: Keras goes on with the pixels that cv2.imread decoded (handed to ``load_img`` as PNG)
2. resizing: Keras' model gets the pixels that blobFromImage resized (scale 1, mean 0), uint8
3. float32 before resizing, where --float32 asks for it: the same, converted first
4. blob arithmetic: Keras' model gets the blob, transposed; a mean, scale, std or order of colours
   that is set by hand and differs from the model's shows here
5. freezing: TensorFlow runs the frozen graph on the blob
6. OpenCV's run: OpenCV runs it

A stage's share is how far the softmax moved by its exchange; where it changes pixels, also how far
these moved, in grey levels, at the size of the blob. The movements add up, class by class,
to the whole way from one end to the other; their L1 and L-inf need not, as they may cancel out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from .answers import Array, Difference, difference

# Name of the softmax after the exchange: the stage exchanged, what it was, what it is now.
_STAGES = {
    "decoded": ("decoding", "Pillow", "cv2.imread"),
    "resized": ("resizing", "load_img, bilinear", "blobFromImage"),
    "float32": ("float32 first", "uint8", "float32"),
    "blob": ("blob arithmetic", "preprocess_input", "blobFromImage"),
    "frozen": ("freezing", "original model", "frozen graph"),
    "opencv": ("OpenCV's run", "TensorFlow", "OpenCV"),
}


@dataclass(frozen=True)
class Levels:
    """How far pixels, 0-255, moved: the mean over all of them and the greatest."""

    mean: float
    greatest: float


@dataclass(frozen=True)
class Share:
    """How far the softmax moved by exchanging one stage; levels: how far pixels did, or None."""

    cause: str
    before: str
    after: str
    moved: Difference
    levels: Optional[Levels]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        levels = asdict(self.levels) if self.levels else None
        return {"cause": self.cause, **self.moved.as_dict(), "grey_levels": levels}


@dataclass(frozen=True)
class Explanation:
    """The shares in their order; total: the movements added up class by class.

    end_to_end: between the two ends, which is not computed from the movements. float32: what
    converting to float32 before resizing would change, or does, whether it is a share or not.
    """

    shares: list[Share]
    total: Difference
    end_to_end: Difference
    float32: Share

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "shares": [share.as_dict() for share in self.shares],
            "total": self.total.as_dict(),
            "end_to_end": self.end_to_end.as_dict(),
            "float32_before_resizing": self.float32.as_dict(),
        }

    def rows(self) -> list[Share]:
        """Return the rows of the table: the shares, and what they add up to."""
        ends = ("added up", "Keras, end to end", "OpenCV, end to end")
        return [*self.shares, Share(*ends, self.total, None)]


def explain(
    softmax: Mapping[str, Array], levels: Mapping[str, Levels], float32: bool
) -> Explanation:
    """Return what the difference is made of.

    softmax: [1, C] each, "keras" for that end and one for each key of _STAGES. levels: of the
    stages that change pixels. float32: whether the blob was made of pixels converted first.
    """
    stages = [name for name in _STAGES if name != "float32" or float32]
    values = [softmax[name].astype(np.float64) for name in ("keras", *stages)]
    steps = [after - before for before, after in zip(values, values[1:])]
    nothing = np.zeros_like(values[0])
    return Explanation(
        shares=[
            Share(*_STAGES[name], difference(step, nothing), levels.get(name))
            for name, step in zip(stages, steps)
        ],
        total=difference(np.sum(steps, axis=0), nothing),
        end_to_end=difference(softmax["keras"], softmax["opencv"]),
        float32=Share(
            *_STAGES["float32"],
            difference(softmax["resized"], softmax["float32"]),
            levels.get("float32"),
        ),
    )
