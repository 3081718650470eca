"""From a picture to a network's input: Keras' modes, a user's figures, or what `predict` is told.

One type for all: `Preprocessing.apply` states the input in NumPy, `call` is the blobFromImage call
that OpenCV needs for it, stated in blob.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from conformance.errors import ConformanceError
from conformance.tables import check_keys, parse_toml

from .blob import BlobCall, state_blob

Array = NDArray[Any]
Triple = tuple[float, float, float]
Size = tuple[int, int]

KEYS = ("scale", "mean", "std", "rgb", "crop", "resize")


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a picture to a network's input, ``(pixel - mean) * scale / std`` at their end.

    That is the arithmetic of blobFromImage and of the tutorial's TestClsModuleConfig, on pixels
    0-255. Sizes are (height, width).
    """

    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)  # in the order of the network's channels, as std
    std: Optional[Triple] = None  # blobFromImage can't divide by it: done after the call
    rgb: bool = True  # the network takes RGB, else BGR
    crop: bool = True  # resize until `size` is covered and cut out its centre, or stretch
    resize: Optional[Size] = None  # stretch to this before
    size: Optional[Size] = None  # of the input; None is the picture's
    float32: bool = False  # convert before anything is resized
    grey: bool = False  # read a grey picture, whose channel takes the first mean and std
    mode: str = ""  # of MODES, whose figures these are: `apply` rounds as Keras does

    def as_dict(self) -> dict[str, Any]:
        """Return what packs record, their keys with it: a mode stands for its figures."""
        kept = ("mode", *KEYS)
        of = Preprocessing(crop=self.crop, resize=self.resize, mode=self.mode)
        return {
            name: value for name, value in asdict(of if of.mode else self).items() if name in kept
        }

    def apply(self, rgb: Array) -> NDArray[np.float32]:
        """Return the network's input for RGB pixels [..., H, W, 3], 0-255: float32, same shape.

        rgb: uint8 or float32. That of a mode equals Keras' ``preprocess_input`` bit for bit: the
        float32 operations of ``_preprocess_numpy_input`` in keras/src/applications/
        imagenet_utils.py in their order. Raises ConformanceError for another dtype or shape.
        """
        _check_pixels(rgb)
        pixels: Array = rgb.astype(np.float32)
        if not self.rgb:
            pixels = pixels[..., ::-1]
        mean = np.asarray(self.mean)
        if self.mode:  # Keras divides first
            pixels = pixels / np.float32(1 / self.scale) - np.float32(mean * self.scale)
        else:
            pixels = (pixels - np.float32(mean)) * np.float32(self.scale)
        if self.std is not None:
            pixels = pixels / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(pixels)

    def call(self) -> BlobCall:
        """Return the ``cv2.dnn.blobFromImage`` call for a BGR image, or a grey one."""
        size = self.size and (self.size[1], self.size[0])
        padding = "crop_center" if self.crop else "null"
        return BlobCall(size, self.scale, self.mean, self.rgb and not self.grey, padding)

    def divide(self, blob: Array) -> NDArray[np.float32]:
        """Return `blob` [N, 3 or 1, H, W] divided by std, the step blobFromImage can't do."""
        if self.std is None:
            return blob
        std = np.asarray(self.std, np.float32)[: blob.shape[1]]
        return np.asarray(blob / std[None, :, None, None], np.float32)

    def blob(self, image: Array) -> NDArray[np.float32]:
        """Return what the call makes of a BGR image, divided by std: [1, 3, height, width]."""
        return self.divide(state_blob([image], self.call()))

    def lines(self) -> list[str]:
        """Return it in words, in lines of at most 80 columns."""
        steps = ["converted to float32"] if self.float32 else []
        if self.resize:
            steps.append("resized to {} x {}".format(*self.resize))
        how = "centre crop" if self.crop else "stretched"
        colours = "grey" if self.grey else "RGB" if self.rgb else "BGR"
        steps.append("{} to {} x {}, {}".format(how, *self.size or ("?", "?"), colours))
        count = 1 if self.grey else 3
        numbers = [f"mean {numbers_text(self.mean[:count])}", f"scale {self.scale:.6g}"]
        if self.std:
            numbers.append(f"std {numbers_text(self.std[:count])}")
        return [", ".join(steps), ", ".join(numbers)]


_OF_255 = (0.485 * 255, 0.456 * 255, 0.406 * 255)
MODES = {
    "tf": Preprocessing(1 / 127.5, (127.5, 127.5, 127.5), mode="tf"),
    "caffe": Preprocessing(mean=(103.939, 116.779, 123.68), rgb=False, mode="caffe"),
    "torch": Preprocessing(1 / 255, _OF_255, (0.229, 0.224, 0.225), mode="torch"),
    # Networks that preprocess in their own first layers: RGB pixels, 0-255, as they are.
    "none": Preprocessing(mode="none"),
}
# The tutorial's TestClsModuleConfig where its default_img_preprocess is False.
TUTORIAL = Preprocessing(crop=False)


def get_mode(name: str) -> Preprocessing:
    """Return the mode `name`; raise ConformanceError if there is none such."""
    if name not in MODES:
        raise ConformanceError(
            f"unknown preprocessing mode {name!r}: use one of {', '.join(MODES)}"
        )
    return MODES[name]


def numbers_text(values: Sequence[float]) -> str:
    """Return the numbers as one would type them."""
    return " ".join(f"{value:g}" for value in values)


def _check_pixels(image: Array) -> None:
    if image.dtype not in (np.uint8, np.float32) or image.ndim < 3 or image.shape[-1] != 3:
        raise ConformanceError(
            f"image of dtype {image.dtype} and shape {list(image.shape)}: "
            "expected uint8 or float32 pixels, 0-255, shaped [..., height, width, 3]"
        )


def preprocessing_from(values: Mapping[str, Any]) -> Preprocessing:
    """Return what `as_dict` or ``dataclasses.asdict`` gave, lists being tuples again."""
    known = {field.name for field in fields(Preprocessing)}
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
    }
    if given.get("mode"):
        mode = get_mode(given["mode"])
        return replace(mode, **{k: v for k, v in given.items() if k not in KEYS[:4]})
    return Preprocessing(**given)


def read_preprocessing(where: str, value: Any, folder: Path) -> Preprocessing:
    """Return the preprocessing that `value` means: a mode, a TOML file or a table of figures.

    where: the option or key, for messages. folder: what a file's path is relative to. Raises
    ConformanceError for an unknown mode, a missing file, an unknown key or a bad figure.
    """
    if isinstance(value, Mapping):
        return _figures(where, value)
    if value in MODES:
        return MODES[value]
    path = folder / Path(str(value)).expanduser()
    if not path.is_file():
        raise ConformanceError(
            f"{where} {value!r}: no such file, and none of the modes {', '.join(MODES)}; give one "
            f"of them or a TOML file with {', '.join(KEYS)}"
        )
    table = parse_toml(path)
    if not table:
        raise ConformanceError(
            f"{path} says nothing: give one or more of {', '.join(KEYS)}, or 'none' for RGB, 0-255"
        )
    return _figures(str(path), table)


def _figures(where: str, table: Mapping[str, Any]) -> Preprocessing:
    check_keys(where, table, KEYS, ())
    resize = table.get("resize")
    std = _triple(where, "std", table["std"]) if "std" in table else None
    if std and 0 in std:
        raise ConformanceError(
            f"{where}: 'std' is divided by: it must not be 0, as in {table['std']!r}"
        )
    return Preprocessing(
        scale=_number(where, "scale", table.get("scale", 1.0)),
        mean=_triple(where, "mean", table.get("mean", 0.0)),
        std=std,
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


def _flag(where: str, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConformanceError(f"{where}: {key!r} must be true or false, not {value!r}")
    return value
