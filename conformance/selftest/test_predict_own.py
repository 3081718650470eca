"""The command predict on models of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import cv2
import numpy as np
import tensorflow as tf

from conformance.cli.main import main
from conformance.fixtures import fixture_path

from .own_models import CLASSES, classifier_v1, features, graph_v1, layers, model, save
from .test_predict import Run, read

SIDE = 32
FIGURES = "scale = 0.01\nmean = [120, 110, 100]\nstd = [0.5, 1, 2]\nrgb = false\ncrop = false\n"
# The output that is predicted is neither the first nor the last.
HEADS = (("box", 4, None), ("classes", CLASSES, "softmax"), ("tags", 5, "sigmoid"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, figures, labels and a picture as large as their inputs."""
    folder = tmp_path_factory.mktemp("own")
    save(model(HEADS), folder / "three.keras")
    save(model([("digit", 10, None)], (SIDE, SIDE, 1)), folder / "grey.keras")
    graph_v1(folder / "v1.pb", classifier_v1, "prob")
    images = layers.Input((16, 16, 3))
    made = tf.keras.Model(images, layers.Conv2D(4, 1)(features(images)))
    save(made, folder / "map.keras")
    (folder / "figures.toml").write_text(FIGURES)
    (folder / "labels.txt").write_text("".join(f"sort {n}\n" for n in range(CLASSES)))
    photo = cv2.resize(read(fixture_path("images/fruits.jpg")), (SIDE, SIDE))
    cv2.imwrite(str(folder / "exact.png"), photo)
    cv2.imwrite(str(folder / "small.png"), cv2.resize(photo, (24, 24)))
    return folder


def command(home: Path, name: str, *more: str, image: str = "exact.png") -> list[str]:
    """Return the arguments of the command on a model in `home`."""
    paths = (str(home / name), "--packs", str(home / "packs"), "--image", str(home / image))
    return ["predict", *paths, *more]


def told(capsys: Run) -> dict[str, Any]:
    """Return the line of JSON that was printed."""
    return dict(json.loads(capsys.readouterr().out))


def check(given: dict[str, Any], expected: Any) -> None:
    """Fail unless both frameworks gave the best five of the values `expected`."""
    for framework in ("opencv", "tensorflow"):
        best = given[framework]["top5"]
        assert [one["class"] for one in best] == np.argsort(-expected)[:5].tolist()
        confidences = [one["confidence"] for one in best]
        np.testing.assert_allclose(confidences, np.sort(expected)[:-6:-1], rtol=1e-4, atol=1e-5)


def test_figures_labels_and_softmax_are_the_models(home: Path, capsys: Run) -> None:
    """The blob is made by the model's figures, the softmax among its outputs is predicted."""
    figures = ("--model-preprocess", str(home / "figures.toml"))
    labels = ("--model-labels", str(home / "labels.txt"))
    assert main(command(home, "three.keras", "--json", *figures, *labels)) == 0
    given = told(capsys)
    pixels = read(home / "exact.png").astype(np.float32)
    blob = (pixels - np.array([120, 110, 100])) * 0.01 / np.array([0.5, 1, 2])
    check(given, np.asarray(model(HEADS)(blob[None].astype(np.float32))[1])[0])
    assert given["output_name"] == "classes"
    assert given["opencv"]["top5"][0]["label"] == f"sort {given['opencv']['top5'][0]['class']}"
    assert given["preprocessing"]["crop"] is False


def test_grey_model(home: Path, capsys: Run) -> None:
    """A model of one channel gets the picture in grey; logits are called values; it is drawn."""
    drawn = home / "drawn.png"
    assert main(command(home, "grey.keras", "--json", "--output", str(drawn))) == 0
    given = told(capsys)
    assert given["opencv"]["input_shape"] == [1, 1, SIDE, SIDE]
    grey = cv2.imread(str(home / "exact.png"), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    whole = model([("digit", 10, None)], (SIDE, SIDE, 1))
    check(given, np.asarray(whole(grey[None, ..., None].astype(np.float32)))[0])
    assert read(drawn).shape[2] == 3
    assert main(command(home, "grey.keras", "--opencv-only")) == 0
    text = capsys.readouterr().out
    assert "stretched" not in text
    assert f"centre crop to {SIDE} x {SIDE}, grey" in text
    assert "  class ID       value  label" in text


def test_explanation_of_a_graph(home: Path, capsys: Run) -> None:
    """--explain splits the difference of a frozen graph too, which has no Keras model."""
    more = ("--model-preprocess", "tf", "--explain", "--json")
    assert main(command(home, "v1.pb", *more, image="small.png")) == 0
    found = told(capsys)["explanation"]
    assert [share["cause"] for share in found["shares"]][-2:] == ["freezing", "OpenCV's run"]
    assert found["shares"][0]["grey_levels"]["greatest"] == 0
    assert max(share["l1"] for share in found["shares"]) < 1e-5


def test_pack_is_enough(home: Path, capsys: Run) -> None:
    """Where the file is not at hand its pack is predicted by, under the file's name."""
    assert main(command(home, "v1.pb", "--model-preprocess", "tf", "--json")) == 0
    whole = told(capsys)
    arguments = command(home, "v1.pb", "--json", "--opencv-only")
    assert main(["predict", "v1.pb", *arguments[2:]]) == 0
    assert told(capsys)["opencv"]["top5"] == whole["opencv"]["top5"]


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("map.keras", (), "gives a map of 8 x 8 x 4 values, no row of classes to predict"),
        ("grey.keras", ("--explain",), "grey.keras takes grey images"),
        ("absent.keras", (), "no such file or folder; give a .keras"),
        ("three.keras", ("--model-labels", "absent.txt"), "--model-labels absent.txt: no such"),
        ("three.keras", ("--size", "16", "16"), "three.keras takes 32 x 32 pixels"),
    ],
)
def test_what_does_not_fit(
    home: Path, model: str, more: tuple[str, ...], said: str, capsys: Run
) -> None:
    """What can't be predicted, or not like this, is one error and status 2."""
    assert main(command(home, model, "--opencv-only" if not more else "--json", *more)) == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if not e.startswith("building")]
    assert len(errors) == 1
    assert said in errors[0]
