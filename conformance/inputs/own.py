"""What the input of a user's own model must be: one of Keras' modes, or figures of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.tables import check_keys, parse_toml

from .modes import MODES, BlobArguments, blob_arguments, preprocess

if TYPE_CHECKING:  # numpy.typing came with NumPy 1.20
    from numpy.typing import NDArray

    from .modes import Triple

    Array = NDArray[Any]

FIGURES = ("scale", "mean", "std", "rgb")
KEYS = (*FIGURES, "crop", "resize")


@dataclass(frozen=True)
class OwnPreprocessing:
    """From an image to a model's input.

    mode: a key of preprocessing.MODES, or "" for ``(pixel - mean) * scale / std`` of pixels 0-255,
    the arithmetic of blobFromImage and of the tutorial's TestClsModuleConfig; mean and std in the
    order of the model's channels, RGB if `rgb`, else BGR. crop: the image is resized until it
    covers the input, whose size is cut out of its centre; otherwise it is stretched. resize: height
    and width to which the image is stretched before that.
    """

    mode: str = "none"
    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Optional[Triple] = None
    rgb: bool = True
    crop: bool = True
    resize: Optional[tuple[int, int]] = None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `preprocessing_from` reads it."""
        return asdict(self)

    def blob_arguments(self) -> BlobArguments:
        """Return the ``cv2.dnn.blobFromImage`` call that gives the model's input of a BGR image."""
        if self.mode:
            return blob_arguments(self.mode)
        return BlobArguments(self.scale, self.mean, self.rgb, self.std)

    def apply(self, rgb: Array) -> NDArray[np.float32]:
        """Return the model's input for RGB pixels [..., H, W, 3], 0-255: float32, same shape."""
        if self.mode:
            return preprocess(rgb, self.mode)
        pixels: Array = preprocess(rgb, "none")
        pixels = pixels if self.rgb else pixels[..., ::-1]
        pixels = (pixels - np.asarray(self.mean, np.float32)) * np.float32(self.scale)
        if self.std is not None:
            pixels = pixels / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(pixels)

    def __str__(self) -> str:
        if self.mode:
            return self.mode
        return ", ".join(
            f"{name} {value}" for name, value in asdict(self).items() if name != "mode"
        )


def preprocessing_from(values: Mapping[str, Any]) -> OwnPreprocessing:
    """Return what `as_dict` wrote, lists being tuples again."""
    known = {field.name for field in fields(OwnPreprocessing)}
    tuples: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
    }
    return OwnPreprocessing(**tuples)


def read_preprocessing(where: str, value: Any, folder: Path) -> OwnPreprocessing:
    """Return the preprocessing that `value` means: a mode, a TOML file or a table of figures.

    where: the option or key, for messages. folder: what a file's path is relative to. Raises
    ConformanceError for an unknown mode, a missing file, an unknown key or a bad figure.
    """
    if isinstance(value, Mapping):
        return _figures(where, value)
    if value in MODES:
        return OwnPreprocessing(mode=value)
    path = folder / Path(str(value)).expanduser()
    if not path.is_file():
        raise ConformanceError(
            f"{where} {value!r}: no such file, and none of the modes {', '.join(MODES)}; give one "
            f"of them or a TOML file with {', '.join(KEYS)}"
        )
    return _figures(str(path), parse_toml(path))


def _figures(where: str, table: Mapping[str, Any]) -> OwnPreprocessing:
    check_keys(where, table, KEYS, ())
    resize = table.get("resize")
    return OwnPreprocessing(
        mode="",
        scale=_number(where, "scale", table.get("scale", 1.0)),
        mean=_triple(where, "mean", table.get("mean", [0.0, 0.0, 0.0])),
        std=_divisors(where, table["std"]) if "std" in table else None,
        rgb=_flag(where, "rgb", table.get("rgb", True)),
        crop=_flag(where, "crop", table.get("crop", True)),
        resize=None if resize is None else read_size(f"{where}: 'resize'", resize),
    )


def read_size(where: str, value: Any) -> tuple[int, int]:
    """Return height and width; raise ConformanceError unless `value` is two positive integers."""
    whole = isinstance(value, Sequence) and all(type(side) is int and side > 0 for side in value)
    if not whole or isinstance(value, str) or len(value) != 2:
        raise ConformanceError(f"{where} must be height and width in pixels, not {value!r}")
    return (value[0], value[1])


def _number(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ConformanceError(f"{where}: {key!r} must be a number, not {value!r}")
    return float(value)


def _triple(where: str, key: str, value: Any) -> Triple:
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3:
        raise ConformanceError(
            f"{where}: {key!r} must be one number for each of three channels, not {value!r}"
        )
    first, second, third = (_number(where, key, item) for item in values)
    return (first, second, third)


def _divisors(where: str, value: Any) -> Triple:
    std = _triple(where, "std", value)
    if 0 in std:
        raise ConformanceError(f"{where}: 'std' is divided by: it must not be 0, as in {value!r}")
    return std


def _flag(where: str, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConformanceError(f"{where}: {key!r} must be true or false, not {value!r}")
    return value
