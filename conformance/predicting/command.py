"""The command ``python -m conformance predict MODEL``: the tutorial's test mode."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.models import get_model
from conformance.opencv.records import RunConfig
from conformance.pack import (
    Pack,
    PackRequest,
    default_packs,
    keras_flavour,
    locate_pack,
    producer_versions,
    require_pack,
)

from . import printing, settings
from .answers import Answer, difference, read_labels
from .explaining import Explanation
from .frameworks import Frameworks, PictureError
from .pictures import find_pictures, output_paths, refusal
from .settings import Settings

OK, ERROR = 0, 2  # as conformance.commands has them, which is not imported as it costs time


def predict_options(parser: argparse.ArgumentParser) -> None:
    """Add what `predict` takes."""
    add = parser.add_argument
    add("model", metavar="MODEL")
    add(
        "--image",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="pictures, folders of pictures, globs in quotes (default: the tutorial's squirrel)",
    )
    add("--output", type=Path, metavar="OUT", help="draw the answer on the picture; many: a folder")
    add("--show", action="store_true", help="show it in a window until a key is pressed")
    add("--json", action="store_true", help="one line of JSON a picture")
    add("--explain", action="store_true", help="split the difference by its causes (slow)")
    add("--opencv-only", action="store_true", help="leave TensorFlow out, whose start takes long")
    add(
        "--labels",
        "--classes",
        type=Path,
        metavar="FILE",
        help="a label a line, one for each class (default: ImageNet's for 1000 classes)",
    )
    settings.add_options(parser)
    add(
        "--packs",
        type=Path,
        default=default_packs(),
        metavar="DIR",
        help="folder of reference packs (default: %(default)s)",
    )
    add(
        "--weights",
        default="synthetic",
        metavar="W",
        help="synthetic (default), imagenet, or a file or folder with <model>.weights.h5",
    )
    add("--engine", default="default", help="classic, new, or default: OpenCV's own")
    add("--threads", type=int, metavar="N", help="of both frameworks (default: OpenCV's choice)")
    add(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest time one answer may take (default: 600)",
    )


@dataclass(frozen=True)
class _Told:
    """What is known of one picture."""

    picture: Path
    size: Sequence[int]
    opencv: Answer
    tensorflow: Optional[Answer]
    missing: str
    explanation: Optional[Explanation]


def run_predict(given: argparse.Namespace) -> int:
    """Predict each picture; 2 where one of them can't be used, which the others don't mind."""
    _check(given)
    model = get_model(given.model)
    pictures = find_pictures(given.image or [str(fixture_path("images/squirrel_cls.jpg"))])
    outputs = output_paths(pictures, given.output) if given.output else []
    missing = _tensorflow_missing(given)
    pack = _pack(given)
    shape = np.load(pack.path / "inputs.npy", mmap_mode="r", allow_pickle=False).shape
    chosen = settings.settings_of(given, model.name, model.mode, (shape[1], shape[2]))
    classes = pack.load("outputs_f32").shape[-1]
    labels = read_labels(given.labels, classes)
    if not given.json:
        print(f"{model.name}, weights {given.weights}; picture to blob:")
        print("".join(f"  {line}\n" for line in chosen.told()), end="", flush=True)
    config = RunConfig(engine=given.engine, threads=given.threads)
    status = OK
    with Frameworks(pack, config, given.weights, classes, labels, given.timeout) as frameworks:
        if given.show:
            _check_windows(frameworks)
        for index, picture in enumerate(pictures):
            try:
                told = _one(given, frameworks, picture, chosen, missing)
            except PictureError as error:
                status = ERROR
                _tell_bad(given, picture, error)
                continue
            if given.json:
                print(json.dumps(_record(given, told, chosen, outputs[index : index + 1])))
            _draw(given, frameworks, told, outputs[index : index + 1])
    return status


def _check(given: argparse.Namespace) -> None:
    if given.threads is not None and given.threads < 1:
        raise ConformanceError(f"--threads {given.threads}: give 1 or more")
    if not given.timeout > 0:
        raise ConformanceError(f"--timeout {given.timeout:g}: give more than 0 seconds")
    if given.explain and given.opencv_only:
        raise ConformanceError("--explain compares with TensorFlow: leave --opencv-only out")
    if given.show and sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ConformanceError(
                "--show: there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set); use "
                "--output FILE and look at the file"
            )


def _tensorflow_missing(given: argparse.Namespace) -> str:
    """Return why TensorFlow does not answer, or an empty string."""
    if given.opencv_only:
        return "not asked (--opencv-only)"
    if producer_versions(keras_flavour()) is not None:
        return ""
    if given.explain:
        raise ConformanceError(
            "--explain needs TensorFlow, which is not installed here: "
            "python -m pip install 'opencv-dnn-conformance[tensorflow]'"
        )
    return "not installed here, so that the pack's frozen graph is run by OpenCV alone"


def _pack(given: argparse.Namespace) -> Pack:
    """Return the pack, which is built first where it is missing and TensorFlow is there."""
    flavour = keras_flavour()
    request = PackRequest(get_model(given.model).name, given.weights, "opencv", flavour)
    if locate_pack(given.packs, request) is None and producer_versions(flavour) is not None:
        from conformance.building import run_builder

        for event in run_builder([request], given.packs):
            if event.state == "failed":
                raise ConformanceError(f"the pack of {request.model} can't be built: {event.step}")
            print(f"building the pack: {event}", file=sys.stderr, flush=True)
    return require_pack(given.packs, request)


def _check_windows(frameworks: Frameworks) -> None:
    if not frameworks.about["windows"]:
        raise ConformanceError(
            f"--show: this OpenCV {frameworks.about['version']} was built without windows "
            f"(headless); install opencv-python instead, or use --output FILE"
        )


def _one(
    given: argparse.Namespace,
    frameworks: Frameworks,
    picture: Path,
    chosen: Settings,
    missing: str,
) -> _Told:
    """Ask both frameworks, printing each answer as it comes unless JSON is wanted."""
    reason = refusal(picture)
    if reason:
        raise PictureError(f"{picture}: {reason}; give a JPEG, PNG or another image")
    opencv, size, warning = frameworks.opencv(picture, chosen, given.explain)
    if warning:
        print(f"warning: {picture}: damaged? OpenCV says: {warning}", file=sys.stderr)
    tensorflow, explanation = None, None
    _print(given, ["", f"{picture}, {size[0]} x {size[1]} pixels", *printing.answer_lines(opencv)])
    if not missing:
        tensorflow = frameworks.tensorflow()
        apart = difference(opencv.outputs, tensorflow.outputs)
        _print(given, printing.answer_lines(tensorflow))
        _print(given, [printing.difference_line(opencv, tensorflow, apart)])
        if given.explain:
            explanation = frameworks.explain(picture, chosen, opencv, tensorflow)
            _print(given, ["", *printing.explanation_lines(explanation, given.weights)])
    else:
        _print(given, [f"TensorFlow: {missing}"])
    return _Told(picture, size, opencv, tensorflow, missing, explanation)


def _print(given: argparse.Namespace, lines: Iterable[str]) -> None:
    if not given.json:
        print("\n".join(lines), flush=True)


def _tell_bad(given: argparse.Namespace, picture: Path, error: PictureError) -> None:
    if given.json:
        print(json.dumps({"file": str(picture), "error": str(error)}))
    print(f"error: {error}", file=sys.stderr)


def _draw(
    given: argparse.Namespace, frameworks: Frameworks, told: _Told, output: Sequence[Path]
) -> None:
    lines = printing.caption_lines(told.opencv)
    for path in output:
        frameworks.draw(lines, path)
        _print(given, [f"drawn: {path}"])
    if given.show:
        frameworks.show(lines, str(told.picture))


def _record(
    given: argparse.Namespace, told: _Told, chosen: Settings, output: Sequence[Path]
) -> dict[str, Any]:
    """Return the line of JSON of one picture."""
    tensorflow = told.tensorflow
    apart = tensorflow and difference(told.opencv.outputs, tensorflow.outputs)
    return {
        "file": str(told.picture),
        "width": told.size[0],
        "height": told.size[1],
        "model": get_model(given.model).name,
        "weights": given.weights,
        "preprocessing": chosen.as_dict(),
        "opencv": told.opencv.as_dict(),
        "tensorflow": tensorflow.as_dict() if tensorflow else {"missing": told.missing},
        "difference": apart.as_dict() if apart else None,
        "explanation": told.explanation.as_dict() if told.explanation else None,
        "output": str(output[0]) if output else None,
    }
