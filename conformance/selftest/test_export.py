"""The command export: a file that OpenCV reads rightly, and a script that runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import cv2
import numpy as np
import tensorflow as tf

from conformance.cli.main import main
from conformance.export import command
from conformance.export.routes import Trial, nearest
from conformance.fixtures import fixture_path
from conformance.results.routes import Route

from .own_models import CLASSES, TWO_HEADS, layers, model, save
from .test_predict import read

SIDE = 32
FIGURES = "scale = 0.01\nmean = [120, 110, 100]\nstd = [0.5, 1, 2]\nrgb = false\ncrop = false\n"
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plain model, one that needs a rewrite, one of two outputs, and a picture."""
    folder = tmp_path_factory.mktemp("export")
    save(model(), folder / "plain.keras")
    save(model(TWO_HEADS), folder / "two.keras")
    images = layers.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 3, activation="gelu")(images)
    x = layers.GlobalAveragePooling2D()(layers.Dense(8)(x))
    made = tf.keras.Model(images, layers.Dense(CLASSES, activation="softmax")(x))
    save(made, folder / "gelu.h5")
    (folder / "figures.toml").write_text(FIGURES)
    (folder / "labels.txt").write_text("".join(f"sort {n}\n" for n in range(CLASSES)))
    photo = cv2.resize(read(fixture_path("images/fruits.jpg")), (SIDE, SIDE))
    cv2.imwrite(str(folder / "exact.png"), photo)
    return folder


def export(home: Path, name: str, output: Path, *more: str) -> int:
    """Run the command on a model in `home`; return its status."""
    paths = (str(home / name), "--packs", str(home / "packs"), "-o", str(output))
    return main(["export", *paths, *more])


def run_script(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run run.py by a Python that sees no checkout, elsewhere than in its folder."""
    words = [sys.executable, "-I", str(output / "run.py"), *arguments]
    return subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)


def route_of(output: Path) -> dict[str, Any]:
    """Return what route.json says."""
    return dict(json.loads((output / "route.json").read_text()))


def test_exported_file_and_script_answer_as_keras_does(home: Path, tmp_path: Path) -> None:
    """run.py prints the best classes, by name, with the probabilities of the Keras model."""
    labels = ("--model-labels", str(home / "labels.txt"))
    figures = ("--model-preprocess", str(home / "figures.toml"))
    assert export(home, "plain.keras", tmp_path / "out", *figures, *labels) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("plain.pb", "labels.txt", "run.py", "route.json")
    }
    ran = run_script(tmp_path / "out", str(home / "exact.png"))
    assert ran.returncode == 0, ran.stderr
    images = (read(home / "exact.png") - [120, 110, 100]) * 0.01 / [0.5, 1, 2]
    truth = np.asarray(tf.keras.models.load_model(home / "plain.keras")(images[None]))[0]
    best = truth.argsort()[::-1][:5]
    lines = [line.split(" ", 1) for line in ran.stdout.splitlines()]
    assert [name for _, name in lines] == [f"sort {n}" for n in best]
    np.testing.assert_allclose([float(p) for p, _ in lines], truth[best], atol=2e-6)


def test_route_says_what_was_judged(home: Path, tmp_path: Path) -> None:
    """route.json has the file's digest, the OpenCV it was judged on, and each trial's verdict."""
    assert export(home, "plain.keras", tmp_path / "out") == 0
    route = route_of(tmp_path / "out")
    made = tmp_path / "out" / route["file"]["name"]
    assert route["file"]["bytes"] == made.stat().st_size
    assert route["opencv"]["version"] == cv2.__version__
    assert [one["conforms"] for one in route["tried"]] == [True]
    assert 0 <= route["route"]["l1"] <= route["route"]["allowed"]
    read = cv2.dnn.readNetFromTensorflow(str(made))
    assert not read.empty()


def test_rewrite_is_tried_where_no_other_route_conforms(
    home: Path, tmp_path: Path, capsys: Said
) -> None:
    """A model with gelu and a Dense on an image gets an ONNX file, the graph put in other words."""
    output = tmp_path / "out"
    assert export(home, "gelu.h5", output, "--importer", "tensorflow,onnx") == 0
    said = capsys.readouterr().out
    assert "known: tf-" in said
    assert "gelu.h5 at node" in said
    route = route_of(output)
    assert route["route"]["graph"] == "rewritten"
    assert route["route"]["importer"] == "onnx"
    passes = {one["name"] for one in route["route"]["passes"]}
    assert {"dense_as_convolution", "erfc_as_erf"} <= passes
    assert not any(one["conforms"] for one in route["tried"][:-1])
    assert run_script(output, str(home / "exact.png")).returncode == 0


def test_no_route_is_told_and_writes_nothing(home: Path, tmp_path: Path, capsys: Said) -> None:
    """Where no route conforms the status is 1, and no folder is left."""
    assert export(home, "gelu.h5", tmp_path / "out", "--importer", "tensorflow") == 1
    assert "no route conforms on OpenCV" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_another_opencv_is_judged_in_an_environment_of_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    """--opencv judges by that wheel, whose version route.json bears."""
    monkeypatch.setattr(command, "default_root", lambda: shared / "environments")
    assert export(home, "plain.keras", tmp_path / "out", "--opencv", "4.12.0.88") == 0
    assert route_of(tmp_path / "out")["opencv"]["version"] == "4.12.0"


def test_several_outputs_are_all_printed(home: Path, tmp_path: Path) -> None:
    """run.py of a model with two outputs prints both, with their shapes."""
    assert export(home, "two.keras", tmp_path / "out") == 0
    ran = run_script(tmp_path / "out", str(home / "exact.png"))
    assert ran.returncode == 0, ran.stderr
    shapes = {line[line.index("(") : line.index(")") + 1] for line in ran.stdout.splitlines()}
    assert shapes == {f"(1, {CLASSES})", "(1, 4)"}


def test_folder_with_other_content_is_refused(home: Path, tmp_path: Path, capsys: Said) -> None:
    """A folder that holds anything else stays as it is; an earlier export is replaced."""
    output = tmp_path / "out"
    assert export(home, "plain.keras", output) == 0
    assert export(home, "plain.keras", output) == 0
    (output / "mine.txt").write_text("kept")
    before = sorted(output.iterdir())
    assert export(home, "plain.keras", output) == 2
    assert "has other content (mine.txt)" in capsys.readouterr().err
    assert sorted(output.iterdir()) == before
    assert export(home, "plain.keras", output / "mine.txt") == 2
    assert "a file; give a new folder" in capsys.readouterr().err


def test_picture_that_is_none_ends_the_script_with_a_sentence(home: Path, tmp_path: Path) -> None:
    """run.py without a picture, or with another file, says what to give, and no traceback."""
    assert export(home, "plain.keras", tmp_path / "out") == 0
    for arguments in ((), (str(home / "labels.txt"),)):
        ran = run_script(tmp_path / "out", *arguments)
        assert ran.returncode == 1
        assert "give one picture that OpenCV can read" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_nearest_is_the_one_that_uses_least_of_what_is_allowed() -> None:
    """Of routes that fail, the nearest has the smallest share; one without an answer is none."""
    routes = [Route("onnx", engine) for engine in ("new", "classic")]
    far, near = (
        Trial(route, ["wrong"], strays=strays, allowed=1e-6)
        for route, strays in zip(routes, (2.0, 3e-6))
    )
    silent = Trial(Route("tensorflow", "new"), ["refused"])
    assert nearest([far, silent, near]) is near
    assert nearest([silent]) is None


def test_model_that_cannot_be_loaded_is_an_error(home: Path, tmp_path: Path, capsys: Said) -> None:
    """A file that is no Keras model ends with status 2 and a sentence that names it."""
    (tmp_path / "broken.keras").write_bytes(b"no model")
    assert export(tmp_path, "broken.keras", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "broken.keras" in said
    assert "Traceback" not in said
