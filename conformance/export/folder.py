"""The folder that `export` writes: the file, run.py that needs cv2 and NumPy only, route.json."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import conformance
from conformance.errors import ConformanceError, os_errors
from conformance.inputs.preprocessing import Preprocessing
from conformance.opencv.scripts import read_call
from conformance.pack.format import Pack
from conformance.pack.sealed import file_digest, now, parse_json

from .routes import Trial

SCHEMA = 1
ROUTE, SCRIPT, LABELS = "route.json", "run.py", "labels.txt"


def check_folder(folder: Path) -> None:
    """Raise ConformanceError unless `folder` is missing, empty, or holds an earlier export."""
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except NotADirectoryError:
        raise ConformanceError(f"--output {folder}: a file; give a new folder") from None
    ours = _written_before(folder) if ROUTE in names else set()
    others = sorted(names - ours)
    if others:
        raise ConformanceError(
            f"--output {folder}: the folder has other content ({', '.join(others[:3])}); give a "
            "new or empty one, or one of an earlier export"
        )
    if not folder.absolute().parent.is_dir():
        raise ConformanceError(f"--output {folder}: there is no folder {folder.absolute().parent}")


def _written_before(folder: Path) -> set[str]:
    """Return the names of the files that an earlier export wrote; none for another's route.json."""
    try:
        route = parse_json((folder / ROUTE).read_text(encoding="utf-8"))
        return {ROUTE, SCRIPT, LABELS, route["file"]["name"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_folder(
    folder: Path,
    trial: Trial,
    tried: Sequence[Trial],
    opencv: dict[str, Any],
    labels: Sequence[str],
) -> list[str]:
    """Write the file of a route that conforms, how to run it and what was tried; return the names.

    The folder is complete or as it was. opencv: what capability.probe says. labels: one a class, or
    none. Raises ConformanceError where it can't be written.
    """
    pack, source = trial.pack, trial.file
    assert pack is not None
    assert source is not None
    name = Path(pack.model).stem + source.suffix
    with (
        os_errors(f"--output {folder}: can't be written", "; choose another folder"),
        tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch,
    ):
        made = Path(scratch, "export")
        made.mkdir()
        shutil.copyfile(source, made / name)
        if labels:
            (made / LABELS).write_text("\n".join(labels) + "\n", encoding="utf-8")
        (made / SCRIPT).write_text(_script(trial, pack, opencv, name, bool(labels)), "utf-8")
        route = _route(trial, pack, tried, opencv, made / name)
        (made / ROUTE).write_text(json.dumps(route, indent=1) + "\n", encoding="utf-8")
        names = sorted(file.name for file in made.iterdir())
        if folder.exists():
            folder.rename(Path(scratch, "before"))
        made.rename(folder)
    return names


def _route(
    trial: Trial, pack: Pack, tried: Sequence[Trial], opencv: dict[str, Any], file: Path
) -> dict[str, Any]:
    settings = pack.preprocessing()
    return {
        "kind": "route",
        "schema": SCHEMA,
        "created": now(),
        "conformance": conformance.__version__,
        "model": pack.model,
        "weights": pack.manifest.request["weights"],
        "file": {"name": file.name, "sha256": file_digest(file), "bytes": file.stat().st_size},
        "route": trial.as_dict(),
        "opencv": {name: opencv[name] for name in ("version", "distribution", "cpu_features")},
        "producer": pack.manifest.producer,
        "judged on": pack.manifest.inputs,
        "preprocessing": asdict(settings),
        "blobFromImage": settings.call().keywords(),
        "tried": [one.as_dict() for one in tried],
    }


def _script(trial: Trial, pack: Pack, opencv: dict[str, Any], file: str, labelled: bool) -> str:
    """Return run.py."""
    route, settings = trial.route, pack.preprocessing()
    # The engine that OpenCV takes by itself, the last one, needs no word.
    own_choice = route.engine == opencv["engines"][-1]
    constants = {} if own_choice else opencv["engine_constants"]
    lines = [
        f'"""Classifies a picture with {pack.model}: python {SCRIPT} picture.jpg',
        "",
        f"Judged on OpenCV {opencv['version']} ({route.title}); see {ROUTE}.",
        *([f"One picture at a time: {trial.batches}"] if trial.batches else []),
        '"""',
        "",
        "import os",
        "import sys",
        "",
        "import cv2",
        *(["import numpy as np"] if settings.std is not None else []),
        "",
        "here = os.path.dirname(os.path.abspath(__file__))",
        f"net = {read_call(route.importer, route.engine, constants, file)}",
        *_picture(settings),
        "net.setInput(blob)",
        *(_best(labelled) if len(pack.heads()) == 1 and not pack.is_map else _outputs()),
    ]
    return "\n".join(lines) + "\n"


def _picture(settings: Preprocessing) -> list[str]:
    """Return the lines from sys.argv to the blob."""
    grey = ", cv2.IMREAD_GRAYSCALE" if settings.grey else ""
    keywords = settings.call().keywords()
    arguments = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
    lines = [
        f"image = cv2.imread(sys.argv[1]{grey}) if len(sys.argv) == 2 else None",
        "if image is None:",
        '    sys.exit("give one picture that OpenCV can read")',
    ]
    if settings.resize:
        height, width = settings.resize
        lines.append(f"image = cv2.resize(image, ({width}, {height}))")
    lines.append(f"blob = cv2.dnn.blobFromImage(image, {arguments})")
    if settings.std is not None:
        std = settings.std[:1] if settings.grey else settings.std
        lines.append(f"blob /= np.float32({list(std)!r}).reshape(1, -1, 1, 1)")
    return lines


def _best(labelled: bool) -> list[str]:
    """Return the lines that print the best classes."""
    read = f'labels = open(os.path.join(here, "{LABELS}"), encoding="utf-8").read().splitlines()'
    name = "labels[index]" if labelled else "index"
    return [
        "scores = net.forward().ravel()",
        *([read] if labelled else []),
        "for index in scores.argsort()[::-1][:5]:",
        f'    print("%.6f" % scores[index], {name})',
    ]


def _outputs() -> list[str]:
    """Return the lines that print what several outputs, or a map, are like."""
    return [
        "names = net.getUnconnectedOutLayersNames()",
        "for name, value in zip(names, net.forward(names)):",
        "    print(name, value.shape, value.min(), value.max())",
    ]
