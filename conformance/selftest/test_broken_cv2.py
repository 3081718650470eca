"""An OpenCV that goes wrong in a process of the suite is told as what it is, whoever runs it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.opencv.run import run_candidate
from conformance.opencv.timing import TimingRequest, time_in_child
from conformance.pack.format import Pack
from conformance.pack.sealed import file_digest
from conformance.processes.server import OPENCV, FrameworkError, Server

from .changed_wheel import broken_wheel
from .imagenet_sample import CLASSES, SIZE, sample_pack

CHANGED = "changed the array that it was given as input"
Break = Callable[[str], None]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The tiny network's pack."""
    return sample_pack(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a broken cv2."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.unpack_archive(broken_wheel(folder), folder / "site", "zip")
    return folder / "site"


@pytest.fixture
def break_opencv(pack: Pack, site: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Have the cv2 of further processes go wrong with the pack's file."""

    def break_opencv(how: str) -> None:
        monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        monkeypatch.setenv("BROKEN", f"{how} {file_digest(pack.graph_path)}")

    return break_opencv


def timed(pack: Pack) -> Any:
    """Time the pack's file."""
    inputs = str(pack.path / "inputs.npy")
    request = TimingRequest(str(pack.graph_path), inputs, seconds=0, values=pack.values)
    return time_in_child(request, "mobilenet")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nan forward", "can't time mobilenet: its answer has NaN or infinity in it"),
        ("scribble forward", f"can't time mobilenet: it {CHANGED}"),
        ("shape forward", "can't time mobilenet: its answer has the shape .*1000 values an image"),
        ("segv read", "can't time mobilenet: its process was killed by SIGSEGV"),
    ],
)
def test_nothing_is_timed_that_answers_nonsense(
    pack: Pack, break_opencv: Break, how: str, said: str
) -> None:
    """An OpenCV that answers NaN, changes its input or crashes has no times."""
    timed(pack)
    break_opencv(how)
    with pytest.raises(ConformanceError, match=said):
        timed(pack)


def test_changed_input_is_a_failure_of_the_stage(pack: Pack, break_opencv: Break) -> None:
    """An OpenCV that changes the array that it is given fails, whatever it answers."""
    assert not run_candidate(pack, RunConfig()).failures
    break_opencv("scribble forward")
    (failure,) = run_candidate(pack, RunConfig()).failures
    assert (failure.stage, failure.kind) == ("forward", "error")
    assert f"could not run mobilenet: OpenCV {CHANGED}" in str(failure)


def test_evaluation_tells_a_changed_input(pack: Pack, break_opencv: Break) -> None:
    """So it does in an evaluation, before the first image."""
    break_opencv("scribble forward")
    request = {
        "model": pack.model,
        "graph": str(pack.graph_path),
        "config": {"threads": 1},
        "mode": "tf",
        "size": SIZE,
        "classes": CLASSES,
        "batch": 2,
    }
    with pytest.raises(FrameworkError, match=CHANGED):
        Server(OPENCV, request, 60)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nan forward", "mobilenet: 1 of 1000 outputs of OpenCV "),
        ("shape forward", "the output has the shape [1, 999] for 1000 classes"),
        ("scribble forward", CHANGED),
        ("abort forward", "mobilenet: the process of OpenCV was killed by SIGABRT"),
    ],
)
def test_prediction_tells_nonsense(
    pack: Pack,
    break_opencv: Break,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: str,
    said: str,
) -> None:
    """No class is told of a picture where OpenCV answers NaN, another shape or changes its blob."""
    picture = str(tmp_path / "picture.png")
    cv2.imwrite(picture, np.full((SIZE, SIZE, 3), 99, np.uint8))
    break_opencv(how)
    words = ["--packs", str(pack.path.parents[1]), "--image", picture, "--opencv-only"]
    assert main(["predict", "mobilenet", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "class ID" not in printed.out
