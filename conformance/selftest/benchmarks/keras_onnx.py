"""keras-onnx: Keras' own ONNX export of each model, by ONNX Runtime and by OpenCV

It is a second way to ONNX: ``model.export(format="onnx")``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

from conformance.candidate import RunConfig
from conformance.cli import BAD, OK
from conformance.cli.printing import print_table
from conformance.inputs.images import pack_inputs
from conformance.models import EXTENDED, MODELS, ModelSpec, get_model
from conformance.opencv.capability import ENGINES, engines
from conformance.opencv.net import read
from conformance.processes.child import ask_module
from conformance.processes.serve import answer_once
from conformance.reference import quiet
from conformance.reference.weights import build_model

# Of the greatest probability: more than rounding moves it, less than any mistake.
SAME = 1e-2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all 40")


def main(arguments: argparse.Namespace) -> int:
    """Export each model in a process of its own and print what came of it."""
    names = arguments.models or [*MODELS, *EXTENDED]
    rows, right = [], 0
    for name in names:
        found = ask_module(__name__, [name], 900, f"{name} can't be tried")
        rows.append((name, found["export"], *(found["opencv"].get(one, "-") for one in ENGINES)))
        right += found["export"] == "right"
        print(name, json.dumps(found), file=sys.stderr, flush=True)
    print_table(
        f"Keras' own export, OpenCV {cv2.__version__}", ("model", "its runtime", *ENGINES), rows
    )
    print(f"the exported file is right by ONNX Runtime for {right} of {len(names)} models")
    return OK if right == len(names) else BAD


def try_model(name: str) -> dict[str, Any]:
    """Return what the exported file of a model comes to: by its runtime, and by each engine."""
    spec = get_model(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        try:
            truth, images = _exported(spec, path)
            session = onnxruntime.InferenceSession(str(path))
            answer = session.run(None, {session.get_inputs()[0].name: images})[0]
        except Exception as error:  # Keras and the runtime raise what they like
            return {"export": _reason(error), "opencv": {}}
        by = {engine: _opencv(path, engine, images, truth) for engine in engines(cv2)}
        return {"export": _verdict(answer, truth), "opencv": by}


def _exported(spec: ModelSpec, path: Path) -> tuple[Any, Any]:
    with quiet():
        model = build_model(spec, "synthetic")
        _, images = pack_inputs(spec)
        images = images[:1]
        truth = np.asarray(model(images, training=False))
        model.export(str(path), format="onnx", verbose=False)
    return truth, images


def _opencv(path: Path, engine: str, images: Any, truth: Any) -> str:
    try:
        net = read(cv2, path, RunConfig("onnx", engine))
        net.setInput(images)  # the file takes NHWC
        return _verdict(net.forward(), truth)
    except Exception as error:
        return _reason(error)


def _verdict(answer: Any, truth: Any) -> str:
    if answer.shape != truth.shape:
        return f"shape {list(answer.shape)}"
    strayed = float(np.abs(answer - truth).max())
    return "right" if strayed <= SAME * float(truth.max()) else f"strays by {strayed:.2g}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


if __name__ == "__main__":
    answer_once(lambda: try_model(sys.argv[1]))
