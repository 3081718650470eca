"""How a picture becomes a blob: the model's default, or set by hand, as the tutorial has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from .modes import BlobArguments

Size = tuple[int, int]

# What the tutorial's TestClsModuleConfig has where its default_img_preprocess is False.
TUTORIAL = BlobArguments(scalefactor=1.0, mean=(0.0, 0.0, 0.0), swapRB=True, std=None)
TUTORIAL_CROP = False


@dataclass(frozen=True)
class Settings:
    """Everything between the file and the blob, in the order it is done.

    float32: convert the pixels before they are resized. resize: (height, width) to stretch to, or
    None. crop: resize until `size` (height, width) is covered and cut out its centre, or stretch.
    arguments: of blobFromImage, and the division by std after it. grey: read the file as a grey
    image, whose one channel takes the first mean and std.
    """

    arguments: BlobArguments
    crop: bool
    size: Size
    resize: Optional[Size] = None
    float32: bool = False
    grey: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, names as the options have them."""
        return {
            "float32": self.float32,
            "resize": self.resize,
            "size": self.size,
            "crop": self.crop,
            "rgb": self.arguments.swapRB,
            "grey": self.grey,
            "mean": self.arguments.mean,
            "scale": self.arguments.scalefactor,
            "std": self.arguments.std,
        }

    def request(self) -> dict[str, Any]:
        """Return it as plain JSON values for a child process; `from_request` reads it."""
        return asdict(self)

    def told(self) -> list[str]:
        """Return it in words, in lines of at most 80 columns."""
        of = self.arguments
        steps = ["converted to float32"] if self.float32 else []
        if self.resize:
            steps.append("resized to {} x {}".format(*self.resize))
        how = "centre crop" if self.crop else "stretched"
        colours = "grey" if self.grey else "RGB" if of.swapRB else "BGR"
        steps.append("{} to {} x {}, {}".format(how, *self.size, colours))
        count = 1 if self.grey else 3
        numbers = [f"mean {numbers_text(of.mean[:count])}", f"scale {of.scalefactor:.6g}"]
        if of.std:
            numbers.append(f"std {numbers_text(of.std[:count])}")
        return [", ".join(steps), ", ".join(numbers)]


def numbers_text(values: Sequence[float]) -> str:
    """Return the numbers as one would type them."""
    return " ".join(f"{value:g}" for value in values)


def from_request(request: dict[str, Any]) -> Settings:
    """Return the settings of which `request` gave plain values."""
    arguments = BlobArguments(**request["arguments"])
    return Settings(**{**request, "arguments": arguments})
