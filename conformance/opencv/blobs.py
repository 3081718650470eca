"""cv2.dnn.blobFromImage on a list of images, in a process of its own.

`run_blobs` is the parent's side and imports no cv2; ``python -m conformance.opencv.blobs FOLDER``
is the child's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import numpy as np

from conformance.errors import ConformanceError

from .capability import load_cv2
from .process import last_lines, run_module
from .records import Array


@dataclass(frozen=True)
class BlobCase:
    """One call: blobFromImage of an array, or blobFromImages of a list of arrays.

    image: uint8 or float32 [H, W, 3]. arguments: keyword arguments, such as scalefactor, size
    (width, height), mean, swapRB, crop, ddepth.
    """

    image: Union[Array, Sequence[Array]]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def run_blobs(cases: Sequence[BlobCase], timeout: float = 60) -> list[Union[Array, str]]:
    """Return each case's blob [N, 3, H, W], or OpenCV's error message where the call failed.

    Raises ConformanceError when the child process dies or takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as name:
        folder = Path(name)
        _write_cases(folder, cases)
        ending = run_module("conformance.opencv.blobs", [name], folder / "log", timeout)
        if ending.code != 0:
            code = "no answer in time" if ending.code is None else f"exit code {ending.code}"
            raise ConformanceError(
                f"blobFromImage: its process gave no result ({ending.signal or code})."
                f"{last_lines(ending.log)}"
            )
        errors = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
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
        calls.append({"images": count, "arguments": dict(case.arguments)})
    np.savez(folder / "cases.npz", **arrays)
    (folder / "calls.json").write_text(json.dumps(calls, default=float), encoding="utf-8")


def _call(cv2: Any, call: Mapping[str, Any], images: list[Array]) -> Array:
    arguments = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in call["arguments"].items()
    }
    if call["images"] is None:
        return np.asarray(cv2.dnn.blobFromImage(images[0], **arguments))
    return np.asarray(cv2.dnn.blobFromImages(images, **arguments))


def main(folder: Path) -> None:
    """Make the blobs of the cases in `folder`."""
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
    (folder / "errors.json").write_text(json.dumps(errors), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
