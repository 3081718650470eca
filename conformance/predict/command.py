"""predict: pictures of yours through OpenCV and TensorFlow: the classes, times and differences"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from conformance.candidate import RunConfig
from conformance.cli import ERROR, OK
from conformance.cli.options import ENGINE, OWN, add_option, add_options, chosen
from conformance.errors import ConformanceError, install
from conformance.fixtures import fixture_path
from conformance.inputs.preprocessing import Preprocessing
from conformance.own_models import OwnModel
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS, TITLES
from conformance.pack.request import (
    PackRequest,
    keras_flavour,
    producer_versions,
    request_versions,
    runtime_versions,
)
from conformance.pack.store import locate_pack, require_pack

from . import options, printing
from .answers import Answer, difference, read_labels
from .explanation import Explanation
from .frameworks import Frameworks, PictureError
from .pictures import find_pictures, output_paths, refusal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `predict` takes."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name, or the path of your own model")
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
    options.add_options(parser)
    add_options(parser.add_argument_group("models of your own").add_argument, *OWN)
    add_options(add, "--packs", "--weights")
    add_option(add, "--engine", **ENGINE)
    add_option(add, "--threads", help="of both frameworks (default: OpenCV's choice)")
    add_option(add, "--timeout", help="longest time one answer may take (default: 600)")


@dataclass(frozen=True)
class _Found:
    """What is known of one picture."""

    picture: Path
    size: Sequence[int]
    opencv: Answer
    tensorflow: Optional[Answer]
    missing: str
    explanation: Optional[Explanation]
    reference: str = "tensorflow"  # or "runtime": whose answer is beside OpenCV's


def main(given: argparse.Namespace) -> int:
    """Predict each picture; 2 where one of them can't be used, which the others don't mind."""
    _check(given)
    name, own = _model(given)
    pictures = find_pictures(given.image or [str(fixture_path("images/squirrel_cls.jpg"))])
    outputs = output_paths(pictures, given.output) if given.output else []
    pack = _answering(_pack(given, name, own))
    missing = _reference_missing(given, pack)
    settings = options.chosen_preprocessing(given, name, pack.preprocessing())
    if given.explain and settings.grey:
        raise ConformanceError(f"--explain: {name} takes grey images, it explains colour ones only")
    classes = pack.load("outputs_f32").shape[-1]
    labels = read_labels(given.labels, classes, pack.labels())
    weights = given.weights if own is None else Path(own.path or name).name
    _print(given, _heading(pack, weights, settings))
    config = RunConfig(engine=given.engine, threads=given.threads)
    status = OK
    with Frameworks(pack, config, given.weights, classes, labels, given.timeout, own) as frameworks:
        if given.show:
            _check_windows(frameworks)
        for index, picture in enumerate(pictures):
            try:
                found = _one(given, frameworks, picture, settings, missing)
            except PictureError as error:
                status = ERROR
                _tell_bad(given, picture, error)
                continue
            if given.json:
                about = {"model": name, "output_name": pack.output_name or None, "weights": weights}
                print(json.dumps(_record(found, about, settings, outputs[index : index + 1])))
            _draw(given, frameworks, found, outputs[index : index + 1])
    return status


def _check(given: argparse.Namespace) -> None:
    if given.explain and given.opencv_only:
        raise ConformanceError("--explain compares with TensorFlow: leave --opencv-only out")
    if given.show and sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ConformanceError(
                "--show: there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set); use "
                "--output FILE and look at the file"
            )


def _reference_missing(given: argparse.Namespace, pack: Pack) -> str:
    """Return why TensorFlow, or a file's own runtime, does not answer, or an empty string."""
    if pack.manifest.importer in FORMATS:
        return _runtime_missing(given, pack)
    if given.opencv_only:
        return "not asked (--opencv-only)"
    if producer_versions(keras_flavour()) is not None:
        return ""
    if given.explain:
        raise ConformanceError(
            f"--explain needs TensorFlow, which is not installed here: {install('tensorflow')}"
        )
    return "not installed here, so that the pack's frozen graph is run by OpenCV alone"


def _runtime_missing(given: argparse.Namespace, pack: Pack) -> str:
    title = FORMATS[pack.manifest.importer].title
    if given.explain:
        raise ConformanceError(
            f"--explain compares with the Keras model, and {pack.model} is a file as it stands "
            f"({title}): leave --explain out"
        )
    if pack.load("inputs").dtype.kind in "iu":
        raise ConformanceError(
            f"{pack.model} takes whole numbers, which predict does not make of a picture; judge it "
            "with pytest --model"
        )
    if given.opencv_only:
        return "not asked (--opencv-only)"
    if runtime_versions(pack.manifest.importer) is None:
        return f"not installed here, so that the {title} file is run by OpenCV alone"
    return ""


def _reference(pack: Pack) -> str:
    """Return the name of what answers beside OpenCV."""
    format = FORMATS.get(pack.manifest.importer)
    return TITLES[format.runtime[0][0]] if format else "TensorFlow"


def _model(given: argparse.Namespace) -> tuple[str, Optional[OwnModel]]:
    """Return the model's name and, where it is one of the user's own, what is known of it."""
    models = chosen(vars(given), [given.model])
    (name,) = models.names
    own = models.own.get(name)
    if given.explain and own is not None and own.path is None:
        raise ConformanceError(f"--explain: {name} is known by its pack only; give its file's path")
    return name, own


def _pack(given: argparse.Namespace, name: str, own: Optional[OwnModel]) -> Pack:
    """Return the pack, which is built first where it is missing and TensorFlow is there."""
    flavour = keras_flavour()
    weights = given.weights if own is None else own.path or name
    request = PackRequest(name, weights, "opencv", flavour, own)
    can_build = request_versions(request) is not None and (own is None or own.path is not None)
    if can_build and locate_pack(given.packs, request) is None:
        from conformance.pack.builder import jobs_of
        from conformance.pack.pool import Pool

        for event in Pool(jobs_of([request], given.packs)).events():
            if event.state == "failed":
                raise ConformanceError(f"the pack of {request.model} can't be built: {event.step}")
            print(f"building the pack: {event}", file=sys.stderr, flush=True)
    return require_pack(given.packs, request)


def _answering(pack: Pack) -> Pack:
    """Return the pack as the output sees it that is predicted: the first softmax, or row of values.

    Raises ConformanceError for a model that gives maps of values only.
    """
    rows = [head for head in pack.heads() if not head.is_map]
    if not rows:
        shape = " x ".join(map(str, pack.output_shape or ()))
        raise ConformanceError(
            f"{pack.model} gives a map of {shape} values, no row of classes to predict; judge it "
            "with pytest --model"
        )
    return next((head for head in rows if head.kind == "softmax"), rows[0])


def _heading(pack: Pack, weights: str, settings: Preprocessing) -> Iterator[str]:
    """Yield what is said before the first picture."""
    of = f", weights {weights}" if pack.manifest.own is None else ""
    yield f"{pack.model}{of}; picture to blob:"
    yield from (f"  {line}" for line in settings.lines())
    if weights == "synthetic" and pack.manifest.own is None:
        yield f"{printing.SYNTHETIC}: labels and confidences mean nothing"
    if pack.output_name:
        others = ", ".join(h.output_name for h in pack.heads() if h.head != pack.head)
        yield f"predicted is its output {pack.output_name!r}; it also has {others}"


def _weights(frameworks: Frameworks) -> str:
    """Return what --weights says of the model; nothing of the user's own."""
    return frameworks.weights if frameworks.own is None else ""


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
    settings: Preprocessing,
    missing: str,
) -> _Found:
    """Ask both frameworks, printing each answer as it comes unless JSON is wanted."""
    reason = refusal(picture)
    if reason:
        raise PictureError(f"{picture}: {reason}; give a JPEG, PNG or another image")
    opencv, size, warning = frameworks.opencv(picture, settings, given.explain)
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
            explanation = frameworks.explain(picture, settings, opencv, tensorflow)
            lines = printing.explanation_lines(explanation, _weights(frameworks))
            _print(given, ["", *lines])
    else:
        _print(given, [f"{_reference(frameworks.pack)}: {missing}"])
    own = frameworks.pack.manifest.importer in FORMATS
    reference = "runtime" if own else "tensorflow"
    return _Found(picture, size, opencv, tensorflow, missing, explanation, reference)


def _print(given: argparse.Namespace, lines: Iterable[str]) -> None:
    if not given.json:
        print("\n".join(lines), flush=True)


def _tell_bad(given: argparse.Namespace, picture: Path, error: PictureError) -> None:
    if given.json:
        print(json.dumps({"file": str(picture), "error": str(error)}))
    print(f"error: {error}", file=sys.stderr)


def _draw(
    given: argparse.Namespace, frameworks: Frameworks, found: _Found, output: Sequence[Path]
) -> None:
    lines = printing.caption_lines(found.opencv, _weights(frameworks))
    for path in output:
        frameworks.draw(lines, path)
        _print(given, [f"drawn: {path}"])
    if given.show:
        frameworks.show(lines, str(found.picture))


def _record(
    found: _Found, about: dict[str, Any], settings: Preprocessing, output: Sequence[Path]
) -> dict[str, Any]:
    """Return the line of JSON of one picture. about: the model."""
    tensorflow = found.tensorflow
    apart = tensorflow and difference(found.opencv.outputs, tensorflow.outputs)
    return {
        "file": str(found.picture),
        "width": found.size[0],
        "height": found.size[1],
        **about,
        "preprocessing": {k: v for k, v in asdict(settings).items() if k != "mode"},
        "opencv": found.opencv.as_dict(),
        found.reference: tensorflow.as_dict() if tensorflow else {"missing": found.missing},
        "difference": apart.as_dict() if apart else None,
        "explanation": found.explanation.as_dict() if found.explanation else None,
        "output": str(output[0]) if output else None,
    }
