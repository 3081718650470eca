"""predict --explain: mobilenet's own pack and Keras model, in one process of each framework."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.fixtures import fixture_path
from conformance.inputs.preprocessing import MODES, TUTORIAL, Preprocessing
from conformance.pack.request import PackRequest
from conformance.pack.store import require_pack
from conformance.predict.answers import difference, read_labels
from conformance.predict.explanation import Explanation, Levels, explain
from conformance.predict.frameworks import Frameworks
from conformance.predict.printing import explanation_lines

from .test_predict import read

SIZE = (224, 224)
TF = replace(MODES["tf"], size=SIZE)
STAGES = ["decoding", "resizing", "blob arithmetic", "freezing", "OpenCV's run"]


@pytest.fixture(scope="module")
def frameworks(mobilenet_packs: Path) -> Iterator[Frameworks]:
    """Both frameworks on the pack of mobilenet."""
    assert main(["predict", "mobilenet", "--packs", str(mobilenet_packs), "--opencv-only"]) == 0
    pack = require_pack(mobilenet_packs, PackRequest("mobilenet"))
    labels = read_labels(None, 1000)
    with Frameworks(
        pack, RunConfig("tensorflow", "default"), "synthetic", 1000, labels, 300
    ) as one:
        yield one


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG as large as the input, so that decoding and resizing change nothing."""
    path = tmp_path_factory.mktemp("pictures") / "exact.png"
    photo = read(fixture_path("images/squirrel_cls.jpg"))
    cv2.imwrite(str(path), cv2.resize(photo, SIZE))
    return path


def explained(frameworks: Frameworks, picture: Path, settings: Preprocessing) -> Explanation:
    """Return what the difference is made of."""
    opencv, _, _ = frameworks.opencv(picture, settings, pixels=True)
    return frameworks.explain(picture, settings, opencv, frameworks.tensorflow())


def moved(found: Explanation) -> dict[str, float]:
    """Return {cause: L1}."""
    return {share.cause: share.moved.l1 for share in found.shares}


def test_nothing_but_rounding_where_pixels_are_the_same(
    frameworks: Frameworks, exact: Path
) -> None:
    """A PNG of the right size has no share of decoding and resizing, and only rounding else."""
    found = explained(frameworks, exact, TF)
    shares = moved(found)
    assert list(shares) == STAGES
    assert shares["decoding"] == shares["resizing"] == 0
    assert found.shares[1].levels == Levels(0.0, 0.0)
    for cause in STAGES[2:]:
        assert 0 < shares[cause] < 2e-3, cause
    assert found.total.l1 == pytest.approx(found.end_to_end.l1, rel=1e-9)
    assert found.total.linf == pytest.approx(found.end_to_end.linf, rel=1e-9)


def test_shrinking_is_resizing(frameworks: Frameworks) -> None:
    """A photo that is shrunk differs by resizing, as Pillow averages and OpenCV does not."""
    found = explained(frameworks, fixture_path("images/squirrel_cls.jpg"), TF)
    shares = moved(found)
    assert shares["resizing"] > 100 * max(shares["freezing"], shares["OpenCV's run"])
    levels = found.shares[1].levels
    assert levels is not None
    assert 2 < levels.mean < 8
    assert found.float32.levels is not None
    assert 0.1 < found.float32.levels.mean < found.float32.levels.greatest < 1.2
    lines = list(explanation_lines(found, "synthetic"))
    assert max(map(len, lines)) <= 80
    assert [line[:15].strip() for line in lines[1:7]] == [*STAGES, "added up"]
    assert all(line == line.rstrip() for line in lines)


def test_preprocessing_by_hand_is_arithmetic(frameworks: Frameworks, exact: Path) -> None:
    """The tutorial's neutral preprocessing is blamed on arithmetic, and on nothing else."""
    shares = moved(explained(frameworks, exact, replace(TUTORIAL, crop=True, size=SIZE)))
    assert shares.pop("blob arithmetic") > 0.5
    assert max(shares.values()) < 2e-3


def test_rotated_photo_is_decoding(frameworks: Frameworks, tmp_path: Path) -> None:
    """cv2.imread turns a photo upright as its EXIF says, Keras does not: that is decoding."""
    from PIL import Image

    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    with Image.open(fixture_path("images/squirrel_cls.jpg")) as image:
        image.save(path, exif=exif)
    assert moved(explained(frameworks, path, TF))["decoding"] > 0.5


def test_float32_first_is_a_share_of_its_own(frameworks: Frameworks) -> None:
    """With --float32 the conversion is a stage, after resizing and before the arithmetic."""
    found = explained(frameworks, fixture_path("images/home.jpg"), replace(TF, float32=True))
    assert [s.cause for s in found.shares] == [*STAGES[:2], "float32 first", *STAGES[2:]]
    assert found.shares[2].moved == found.float32.moved
    assert moved(found)["blob arithmetic"] < 2e-3


def test_keras_still_loads_as_the_fixture_says(frameworks: Frameworks) -> None:
    """fixtures/keras_loading.npz, which the suite judges by, is what load_img gives today.

    Within a level: another Pillow may round otherwise, and another JPEG decoder, too.
    """
    code = (
        "import sys, numpy; from conformance.selftest.keras_loading import fixture_arrays; "
        "numpy.savez(sys.argv[1], **fixture_arrays())"
    )
    path = frameworks.folder / "loaded.npz"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    committed = np.load(fixture_path("keras_loading.npz"), allow_pickle=False)
    today = np.load(path, allow_pickle=False)
    assert set(today.files) == set(committed.files)
    for name in committed.files:
        assert today[name].shape == committed[name].shape
        assert np.abs(today[name].astype(int) - committed[name]).max() <= 1, name


def test_shares_add_up_class_by_class() -> None:
    """Movements that cancel out leave nothing; the rows' own L1 do not sum up to that."""
    there, back = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    softmax = {"keras": there, "decoded": back, "resized": there, "float32": back}
    softmax |= {"blob": there, "frozen": there, "opencv": there}
    found = explain(softmax, {}, float32=False)
    assert [share.moved.l1 for share in found.shares] == pytest.approx([0.8, 0.8, 0, 0, 0])
    assert found.total.l1 == pytest.approx(0)
    assert found.float32.moved.linf == pytest.approx(0.4)
    assert difference(there, back).l1 == pytest.approx(0.8)


def test_interrupted_question_leaves_nothing_to_wait_for(frameworks: Frameworks) -> None:
    """Ctrl-C while a framework is asked leaves no thread that Python would wait for."""
    server, known = frameworks._opencv, threading.enumerate()
    assert server._reader.daemon
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            server.ask({"do": "about"})
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        signal.signal(signal.SIGALRM, before)
    assert not [one for one in threading.enumerate() if one not in known and not one.daemon]
