"""The benchmarks of bench: the slower wheel that they make, and two processes of one OpenCV."""

from __future__ import annotations

import itertools
import sys
import time
import zipfile
from pathlib import Path

import pytest

from conformance.cli import ERROR, OK
from conformance.cli.main import main
from conformance.errors import ConformanceError

from .benchmarks import bench, pairing
from .benchmarks.__main__ import BENCHMARKS
from .tiny import tiny_pack

CV2 = """
class Net:
    def forward(self, name):
        return f"answer of {name}"

class dnn:
    Net = Net
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages in which something like OpenCV was installed."""
    info = "opencv_python_headless-4.99.0.1.dist-info"
    files = {
        "cv2/__init__.py": CV2,
        "cv2/cv2.abi3.so": "code",
        "cv2/__pycache__/__init__.pyc": "",
        f"{info}/METADATA": "Name: opencv-python-headless\nVersion: 4.99.0.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: cp37-abi3-linux_x86_64\nTag: other\n",
        "../../../bin/tool": "",
    }
    for name, text in files.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    record = "".join(f"{name},,\n" for name in files)
    (tmp_path / "site" / info / "RECORD").write_text(record)
    return tmp_path / "site"


def test_slower_wheel_answers_as_before_but_later(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel holds all that OpenCV's did; its forward waits for the share, then answers."""
    path = bench.slower_wheel(packages, 50, tmp_path)
    assert path.name == "opencv_python_headless-4.99.0.1-1slower-cp37-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(path) as wheel:
        names, code = wheel.namelist(), wheel.read("cv2/__init__.py")
    assert {name.rpartition("/")[2] for name in names} == {
        *("__init__.py", "cv2.abi3.so"),
        *("METADATA", "WHEEL", "RECORD"),
    }
    ticks = itertools.count()
    module: dict[str, type] = {}
    exec(code, module)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    assert module["dnn"].Net().forward("prob") == "answer of prob"  # type: ignore[attr-defined]
    assert next(ticks) > 50


def test_no_opencv_to_slow_down_is_told(tmp_path: Path) -> None:
    """A folder without OpenCV's wheel is refused with its name."""
    with pytest.raises(ConformanceError, match="there is no opencv-python-headless"):
        bench.slower_wheel(tmp_path, 0.03, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="a process is bound to a core on Linux")
def test_ways_of_pairing_are_measured_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark of pairing tells, for each way and number of threads, how ratios spread."""
    tiny_pack(tmp_path, "mobilenet")
    monkeypatch.setattr(pairing, "SECONDS", 0.02)
    monkeypatch.setattr(pairing, "BLOCK", 0.01)
    monkeypatch.delitem(pairing.WAYS, "in turn")
    packs = ["--packs", str(tmp_path)]
    assert main(["pairing", "--pairs", "2", *packs], BENCHMARKS) == OK
    out = capsys.readouterr().out
    assert [out.count(f" {way} ") for way in ("blocks", "duet")] == [2, 1]
    assert main(["pairing", "xception", *packs], BENCHMARKS) == ERROR
    assert "no pack of xception" in capsys.readouterr().err
