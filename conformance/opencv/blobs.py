"""cv2.dnn.blobFromImage and its relatives on a list of cases, in a process of its own.

`run_blobs` is the parent's side and imports no cv2; ``python -m conformance.opencv.blobs FOLDER``
is the child's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Union

import numpy as np

from conformance.candidate import Array
from conformance.processes.child import HERE, ask_module
from conformance.processes.scratch import Scratch
from conformance.processes.serve import answer_once

from .capability import load_cv2
from .levels import AS_IT_IS, Level


@dataclass(frozen=True)
class BlobCase:
    """One call: blobFromImage of an array, or blobFromImages of a list of arrays.

    image: uint8 or float32 [H, W], [H, W, 3] or [H, W, 4]. arguments: keyword arguments, such as
    scalefactor, size (width, height), mean, swapRB, crop, ddepth; a string is the name of a
    constant of cv2 or cv2.dnn. params: call ...WithParams (OpenCV 4.8 and later), the arguments
    being fields of Image2BlobParams. view: key of VIEWS, how the array that OpenCV gets lies in
    memory.
    """

    image: Union[Array, Sequence[Array]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    params: bool = False
    view: str = "plain"

    @property
    def function(self) -> str:
        """The function of cv2.dnn that is called."""
        plural = "" if isinstance(self.image, np.ndarray) else "s"
        return f"blobFromImage{plural}{'WithParams' if self.params else ''}"

    def text(self) -> str:
        """Return the call in words, for a message."""
        images = [self.image] if isinstance(self.image, np.ndarray) else self.image
        sizes = ", ".join(f"{image.dtype} {list(image.shape)}" for image in images)
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.function}({sizes}{', ' * bool(given)}{given}), view {self.view}"


# Arrays as NumPy's users have them: views of other arrays. Each is its own inverse where it can be,
# and what it makes of an image is the image that the blob must be of.
VIEWS: dict[str, Callable[[Array], Array]] = {
    "plain": np.ascontiguousarray,
    "mirrored": lambda image: image[:, ::-1],
    "upside_down": lambda image: image[::-1],
    "every_second": lambda image: image[::2, ::2],
    "part": lambda image: image[3:-5, 7:-11],
    "transposed": lambda image: np.swapaxes(image, 0, 1),
    "column_major": np.asfortranarray,
    "channels_reversed": lambda image: image[..., ::-1],
}


def run_blobs(
    cases: Sequence[BlobCase], timeout: float = 60, level: Level = AS_IT_IS
) -> list[Union[Array, str]]:
    """Return each case's blob [N, 3, H, W], or OpenCV's error message where the call failed.

    level: of the CPU that OpenCV is to run as on.
    Raises ConformanceError when the child process dies or takes longer than `timeout` seconds.
    """
    with Scratch() as name:
        folder = Path(name)
        _write_cases(folder, cases)
        variables = level.config.environment
        errors = ask_module(
            "conformance.opencv.blobs", [name], timeout, "blobFromImage", HERE, **variables
        )
        with np.load(folder / "blobs.npz", allow_pickle=False) as blobs:
            return [errors.get(str(i)) or blobs[str(i)] for i in range(len(cases))]


def _write_cases(folder: Path, cases: Sequence[BlobCase]) -> None:
    arrays: dict[str, Any] = {}
    calls = []
    for index, case in enumerate(cases):
        single = isinstance(case.image, np.ndarray)
        images = [case.image] if single else case.image
        arrays.update({f"{index}_{i}": np.asarray(image) for i, image in enumerate(images)})
        count = None if single else len(images)
        arguments = dict(case.arguments)
        call = {"images": count, "arguments": arguments, "params": case.params, "view": case.view}
        calls.append(call)
    np.savez(folder / "cases.npz", **arrays)
    (folder / "calls.json").write_text(json.dumps(calls, default=float), encoding="utf-8")


def _call(cv2: Any, call: Mapping[str, Any], images: list[Array]) -> Array:
    arguments = {key: _value(cv2, value) for key, value in call["arguments"].items()}
    given: Any = [VIEWS[call["view"]](image) for image in images]
    several = call["images"] is not None
    function = "blobFromImages" if several else "blobFromImage"
    given = given if several else given[0]
    if not call["params"]:
        return np.asarray(getattr(cv2.dnn, function)(given, **arguments))
    params = cv2.dnn.Image2BlobParams()
    for name, value in arguments.items():
        setattr(params, name, value)
    return np.asarray(getattr(cv2.dnn, function + "WithParams")(given, params))


def _value(cv2: Any, value: Any) -> Any:
    if isinstance(value, str):
        return getattr(cv2 if hasattr(cv2, value) else cv2.dnn, value)
    return tuple(value) if isinstance(value, list) else value


def main(folder: Path) -> dict[str, str]:
    """Make the blobs of the cases in `folder`; return the errors of the others, by number."""
    cv2 = load_cv2()
    calls = json.loads((folder / "calls.json").read_text(encoding="utf-8"))
    blobs: dict[str, Any] = {}
    errors: dict[str, str] = {}
    with np.load(folder / "cases.npz", allow_pickle=False) as arrays:
        for index, call in enumerate(calls):
            images = [arrays[f"{index}_{i}"] for i in range(call["images"] or 1)]
            try:
                blobs[str(index)] = _call(cv2, call, images)
            except Exception as error:  # whatever the binding raises is the answer
                errors[str(index)] = str(error).strip() or repr(error)
    np.savez(folder / "blobs.npz", **blobs)
    return errors


if __name__ == "__main__":
    answer_once(lambda: main(Path(sys.argv[1])))
