"""The command predict as users run it, on pictures made on the spot and the tiny network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conformance.cli.main import main
from conformance.fixtures import fixture_path
from conformance.inputs.blob import BlobCall, resize, state_blob
from conformance.opencv.caption import caption
from conformance.pack.labels import IMAGENET
from conformance.predict.answers import Answer, Best
from conformance.predict.frameworks import Frameworks
from conformance.predict.printing import caption_lines

from .imagenet_sample import CLASSES, SIZE, sample_pack
from .tiny import OUTPUT, activations, tiny_weights

Array = np.ndarray[Any, Any]
Run = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packs and, in "pictures", a picture as large as the input and a larger one."""
    root = tmp_path_factory.mktemp("predict")
    sample_pack(root / "packs")
    (root / "pictures").mkdir()
    photo = read(fixture_path("images/fruits.jpg"))
    cv2.imwrite(str(root / "pictures" / "exact.png"), cv2.resize(photo, (SIZE, SIZE)))
    cv2.imwrite(str(root / "pictures" / "larger.png"), cv2.resize(photo, (50, 31)))
    (root / "pictures" / "notes.txt").write_text("no picture")
    return root


def read(path: Path) -> Array:
    """Return the picture as OpenCV reads it: BGR, uint8."""
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return np.asarray(picture)


def command(home: Path, *more: str, images: tuple[str, ...] = ("exact.png",)) -> list[str]:
    """Return the arguments of the command on mobilenet."""
    paths = [str(home / "pictures" / image) for image in images]
    return ["predict", "mobilenet", "--packs", str(home / "packs"), "--image", *paths, *more]


def truth(blob: Array) -> Array:
    """Return the tiny network's float64 softmax [C] of an NHWC blob."""
    return np.asarray(activations(blob, tiny_weights(CLASSES))[OUTPUT][0])


@pytest.fixture(scope="module")
def answered(home: Path) -> dict[str, Any]:
    """The line of JSON of the picture that needs no resizing, both frameworks asked."""
    arguments = [sys.executable, "-m", "conformance", *command(home, "--json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_both_frameworks_give_the_networks_answer(home: Path, answered: dict[str, Any]) -> None:
    """Class, label and confidence of the best five are those of NumPy's float64 in both."""
    pixels = read(answered["file"])[None, ..., ::-1].astype(np.float64)
    expected = truth(pixels / 127.5 - 1)
    labels = fixture_path(IMAGENET).read_text(encoding="utf-8").splitlines()
    for framework in ("opencv", "tensorflow"):
        best = answered[framework]["top5"]
        assert [one["class"] for one in best] == np.argsort(-expected)[:5].tolist()
        assert [one["label"] for one in best] == [labels[one["class"]] for one in best]
        given = [one["confidence"] for one in best]
        np.testing.assert_allclose(given, np.sort(expected)[:-6:-1], atol=1e-6)
        assert answered[framework]["output_shape"] == [1, CLASSES]
        assert answered[framework]["inference_ms"] > 0
    assert answered["opencv"]["input_shape"] == [1, 3, SIZE, SIZE]
    assert answered["tensorflow"]["input_shape"] == [1, SIZE, SIZE, 3]
    assert 0 <= answered["difference"]["linf"] <= answered["difference"]["l1"] < 1e-5
    assert answered["explanation"] is None


def test_text_is_what_the_tutorial_prints(home: Path, capsys: Run) -> None:
    """Shapes, class ID, label, confidence with four decimals and the time, in 80 columns."""
    assert main(command(home, "--opencv-only", images=("larger.png",))) == 0
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    for part in ("larger.png, 50 x 31 pixels", "shape: (1, 3, 16, 16)", "shape: (1, 1000)"):
        assert part in text
    assert "TensorFlow: not asked (--opencv-only)" in text
    table = lines[lines.index("  class ID  confidence  label") + 1 :][:5]
    confidences = [line.split()[1] for line in table]
    assert all(len(value) == len("0.1234") for value in confidences)
    assert confidences == sorted(confidences, reverse=True)
    assert max(len(line) for line in lines if "larger" not in line) <= 80


def test_synthetic_weights_are_named_in_text_and_picture(
    home: Path, tmp_path: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That weights which were never trained know no classes is printed, and drawn on a picture."""
    drawn: list[str] = []
    monkeypatch.setattr(Frameworks, "draw", lambda self, lines, path: drawn.extend(lines))
    assert main(command(home, "--opencv-only", "--output", str(tmp_path / "answer.png"))) == 0
    assert "synthetic weights know no classes" in capsys.readouterr().out
    assert drawn[-1] == "synthetic weights know no classes"
    trained = Answer("OpenCV", "5", "", 1, (), (), 1.0, [Best(1, "tench", 0.9)], np.zeros(2))
    assert caption_lines(trained, "imagenet")[1:] == ["tench: 0.9000"]


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("first", [(), ("--no-default-preprocess",)])
def test_preprocessing_set_by_hand(
    home: Path, capsys: Run, first: tuple[str, ...], crop: bool
) -> None:
    """Resize, crop, colours, mean, scale and std are done as asked, in the tutorial's order.

    What is not given is the model's, or the tutorial's: no mean, scale 1 (here: 1/127.5, set).
    """
    given = ["--bgr", "--std", "0.5", "1", "2", "--resize", "24", "20"]
    given += ["--crop" if crop else "--no-crop"]
    mean = (127.5, 127.5, 127.5)
    if first:
        given, mean = (
            [*given, "--scale", str(1 / 127.5), "--mean", "90", "120", "150"],
            (90, 120, 150),
        )
    arguments = command(home, "--opencv-only", "--json", *first, *given, images=("larger.png",))
    assert main(arguments) == 0
    best = json.loads(capsys.readouterr().out)["opencv"]["top5"]
    picture = resize(read(home / "pictures" / "larger.png"), (20, 24))
    padding = "crop_center" if crop else "null"
    call = BlobCall((SIZE, SIZE), 1 / 127.5, mean, False, padding, layout="NHWC")
    expected = truth(state_blob([picture], call) / np.array([0.5, 1, 2]))
    assert best[0]["class"] == expected.argmax()
    assert best[0]["confidence"] == pytest.approx(expected.max(), abs=1e-5)


def test_float32_first(home: Path, capsys: Run) -> None:
    """--float32 converts before it resizes, which gives other pixels than rounding them."""
    found = []
    for option in ("--float32", "--no-float32"):
        assert main(command(home, "--opencv-only", "--json", option, images=("larger.png",))) == 0
        found.append(json.loads(capsys.readouterr().out)["opencv"]["top5"][0]["confidence"])
    picture = read(home / "pictures" / "larger.png").astype(np.float32)
    call = BlobCall((SIZE, SIZE), 1 / 127.5, (127.5,) * 3, True, "crop_center", layout="NHWC")
    assert found[0] == pytest.approx(truth(state_blob([picture], call)).max(), abs=1e-5)
    assert found[0] != found[1]


def test_labels_of_ones_own(home: Path, tmp_path: Path, capsys: Run) -> None:
    """--labels takes a file with one line a class."""
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"sort {number}\n" for number in range(CLASSES)), encoding="utf-8")
    assert main(command(home, "--opencv-only", "--json", "--labels", str(path))) == 0
    best = json.loads(capsys.readouterr().out)["opencv"]["top5"]
    assert [one["label"] for one in best] == [f"sort {one['class']}" for one in best]


def test_many_pictures(home: Path, tmp_path: Path, capsys: Run) -> None:
    """A folder and a glob give each of their images once, drawn into a folder under its name."""
    images = ("", "*.png", "exact.png")
    output = str(tmp_path / "drawn")
    assert main(command(home, "--opencv-only", "--json", "--output", output, images=images)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["exact.png", "larger.png"]
    assert [Path(line["output"]).name for line in lines] == ["exact.png", "larger.png"]
    assert all(read(line["output"]).shape[1] >= 320 for line in lines)


def test_one_bad_picture_does_not_stop_the_others(home: Path, capsys: Run) -> None:
    """The bad one is told on standard error and in JSON, the others are predicted; status 2."""
    images = ("exact.png", "notes.txt", "larger.png")
    assert main(command(home, "--opencv-only", "--json", images=images)) == 2
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert ["error" in line for line in lines] == [False, True, False]
    assert "notes.txt: no image that cv2.imread can decode" in shown.err


def test_start_imports_no_more_than_it_needs(home: Path) -> None:
    """The command's own process loads neither a framework nor pytest, rich or anything as slow."""
    code = (
        "import sys; from conformance.cli.main import main; status = main(sys.argv[1:]); "
        "slow = {'cv2', 'tensorflow', 'pytest', 'rich', 'scipy', 'PIL'} & set(sys.modules); "
        "sys.exit(str(slow) if slow else status)"
    )
    arguments = [sys.executable, "-c", code, *command(home, "--opencv-only")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


TEXT = ["Inference time: 12.34 ms", "fox squirrel, eastern fox squirrel, Sciurus niger: 0.9525"]
# Height and width of a picture, and whether the caption leaves them as they are.
SHAPES = {
    "photo": (426, 535),
    "icon": (16, 16),
    "pixel": (1, 1),
    "narrow": (900, 40),
    "flat": (20, 900),
    "large": (2000, 3000),
    "panorama": (300, 9000),
}


def shaded(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of what is darkened behind the text, seen on a white picture."""
    drawn = caption(cv2, np.full((*shape, 3), 255, np.uint8), TEXT)
    dark = (drawn[:, 0] == 63).all(axis=1), (drawn[0] == 63).all(axis=1)
    return int(dark[0].sum()), int(dark[1].sum())


@pytest.mark.parametrize("paint", ["white", "black", "noise"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_caption_can_be_read(shape: tuple[int, int], paint: str) -> None:
    """Two lines of white text, 9 pixels high or more, on dark, at the top left, cut off nowhere."""
    noise = np.random.RandomState(0).randint(0, 256, (*shape, 3))
    picture = noise if paint == "noise" else np.full_like(noise, 255 * (paint == "white"))
    drawn = caption(cv2, picture.astype(np.uint8), TEXT)
    height, width = shaded(shape)
    box = drawn[:height, :width]
    assert np.median(box) < 70
    bright = np.asarray((box > 200).all(axis=2))
    rows = np.flatnonzero(bright.any(axis=1))
    lines = np.split(rows, np.flatnonzero(np.diff(rows) > 2) + 1)
    assert len(lines) == 2
    assert all(len(line) >= 9 for line in lines)
    assert not bright[:, :5].any()
    assert not bright[:, -5:].any()
    assert not bright[[0, -1]].any()


@pytest.mark.parametrize("shape", [SHAPES["photo"], SHAPES["large"]])
def test_caption_leaves_the_rest_alone(shape: tuple[int, int]) -> None:
    """A picture with room enough keeps its size, and its pixels outside of the caption."""
    picture = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    drawn = caption(cv2, picture, TEXT)
    height, width = shaded(shape)
    assert 0 < height < shape[0] // 3
    assert drawn.shape == picture.shape
    assert np.array_equal(drawn[height:], picture[height:])
    assert np.array_equal(drawn[:, width:], picture[:, width:])
