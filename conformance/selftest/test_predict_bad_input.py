"""predict on what it can't use: one line that says what, where and what to do; status 2."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.predict.pictures import output_paths

from .test_predict import Run, command, read
from .test_predict import home as home  # a fixture


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not what they seem."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "pickle.npy").write_bytes(pickle.dumps(Trap()))
    (folder / "pickle.jpg").write_bytes(pickle.dumps(Trap()))
    np.save(folder / "array.npy", np.zeros((4, 4, 3)))
    (folder / "none").mkdir()
    (folder / "labels.txt").write_text("one\ntwo\n")
    (folder / "latin.txt").write_bytes(b"\xff\xfe")
    (folder / "claims.png").write_bytes(png_header(40000, 40000))
    photo = fixture_path("images/squirrel_cls.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(photo[: len(photo) // 4])
    return folder


class Trap:
    """Would make a file if it were unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("unpickled",))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims to be so large and has a thousand bytes of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + end


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("text.jpg", "text.jpg: no image that cv2.imread can decode"),
        ("empty.png", "empty.png: an empty file; give a JPEG, PNG"),
        ("pickle.npy", "pickle.npy: a NumPy array is not an image, and is not loaded"),
        ("array.npy", "array.npy: a NumPy array is not an image, and is not loaded"),
        ("pickle.jpg", "pickle.jpg: no image that cv2.imread can decode"),
        ("claims.png", "OPENCV_IO_MAX_IMAGE_PIXELS raises that"),
        ("absent.jpg", "absent.jpg: no such file; give a file, a folder or a glob"),
        ("*.gif", "*.gif: no file matches this glob"),
        ("none", "none: no images in this folder"),
    ],
)
def test_picture(
    home: Path,
    bad: Path,
    image: str,
    said: str,
    capsys: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What is no picture is an error that names it; a pickle is never loaded."""
    monkeypatch.chdir(tmp_path)
    assert main(command(home, "--opencv-only", "--json", images=(str(bad / image),))) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "{bad}/labels.txt"], "labels.txt: 2 lines, but the model has 1000 classes"),
        (["--labels", "{bad}/latin.txt"], "latin.txt: can't be read"),
        (["--labels", "{bad}/absent.txt"], "absent.txt: can't be read"),
        (["--output", "{bad}/absent/out.png"], "absent/out.png: there is no folder"),
        (["--output", "{bad}/out.xyz"], "out.xyz: cannot be written"),
        (["--output", "{bad}/out"], "give a name that ends with .png or .jpg"),
        (["--output", "/proc/out.png"], "--output /proc/out.png: "),
        (["--size", "224", "224"], "mobilenet takes 16 x 16 pixels; leave --size out"),
        (["--resize", "0", "5"], "--resize 0 5: give 1 pixel or more"),
        (["--scale", "0"], "--scale 0: 0 would leave nothing"),
        (["--std", "1", "0", "1"], "--std 1 0 1: 0 would leave nothing"),
        (["--mean", "nan", "0", "0"], "--mean nan 0 0: give finite numbers"),
        (["--threads", "0"], "--threads 0: give 1 or more"),
        (["--timeout", "0"], "--timeout 0: give a number above 0"),
        (["--engine", "fast"], "has no engine 'fast'"),
        (["--explain"], "leave --opencv-only out"),
        (["--weights", "/absent"], "no such file or folder"),
    ],
)
def test_option(home: Path, bad: Path, options: list[str], said: str, capsys: Run) -> None:
    """An option that does not fit is an error that names it."""
    given = [option.format(bad=bad) for option in options]
    assert main(command(home, "--opencv-only", "--json", *given)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert said in errors


def test_show_without_a_display(home: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--show says beforehand that there is no display, or that this OpenCV has no windows."""
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert main(command(home, "--opencv-only", "--show")) == 2
    assert "--show: there is no display" in capsys.readouterr().err
    if "GUI:                           NONE" in cv2.getBuildInformation():
        monkeypatch.setenv("DISPLAY", ":99")
        assert main(command(home, "--opencv-only", "--show")) == 2
        assert "--show: this OpenCV" in capsys.readouterr().err


def test_panorama(home: Path, tmp_path: Path, capsys: Run) -> None:
    """A picture of 30,000 x 400 pixels, or 400 x 30,000, is predicted and drawn."""
    for name, shape in (("wide", (400, 30000, 3)), ("tall", (30000, 400, 3))):
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), np.full(shape, 120, np.uint8))
        output = ("--output", str(tmp_path / "out.png"))
        assert main(command(home, "--opencv-only", *output, images=(str(path),))) == 0
        assert read(tmp_path / "out.png").shape == shape


def test_damaged_picture_warns(home: Path, bad: Path, capsys: Run) -> None:
    """A JPEG that ends too early is predicted as OpenCV decodes it, with a warning or an error."""
    status = main(command(home, "--opencv-only", images=(str(bad / "cut.jpg"),)))
    errors = capsys.readouterr().err
    assert "cut.jpg" in errors
    assert errors.startswith("warning: " if status == 0 else "error: ")


def test_outputs_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Pictures of the same name in different folders are drawn to different files."""
    pictures = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.png", tmp_path / "y.png"]
    found = output_paths(pictures, tmp_path / "out")
    assert [path.name for path in found] == ["x.png", "x-2.png", "y.png"]
    assert output_paths(pictures[:1], tmp_path) == [tmp_path / "x.png"]
    (tmp_path / "file").touch()
    with pytest.raises(ConformanceError, match="a file, but there are 3 pictures"):
        output_paths(pictures, tmp_path / "file")
