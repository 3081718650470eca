"""What an OpenCV offers, and what is said where there is none or a broken one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from conformance.errors import ConformanceError
from conformance.opencv.capability import DISTRIBUTIONS, Probing, probe_in_child
from conformance.processes.child import child_environment

ROOT = Path(__file__).resolve().parents[2]


def fake_cv2(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a cv2 made of `code` before the installed one, for child processes."""
    (folder / "cv2").mkdir()
    (folder / "cv2" / "__init__.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_probe_tells_what_is_installed() -> None:
    """The probe names version, distribution, importers, engines, targets, CPU and threads."""
    found = probe_in_child()
    assert found["version"][0] in "45"
    assert "tensorflow" in found["importers"]
    assert ["opencv", "cpu"] in found["available"]
    assert ["default", "cpu"] in found["available"]
    assert found["engines"] == (
        ["classic"] if found["version"].startswith("4.") else ["classic", "new"]
    )
    assert found["threads"] >= 1
    assert found["cpu_features"]


def test_distribution_is_the_installed_one() -> None:
    """The distribution named is one that pip installed, with its version."""
    named = [name for name in DISTRIBUTIONS if _version(name)]
    if not named:
        pytest.skip("cv2 comes from no pip distribution of OpenCV's own")
    assert any(f"{name} {_version(name)}" in probe_in_child()["distribution"] for name in named)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def test_cv2_of_no_distribution_is_an_unknown_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cv2 that no installed distribution holds, as one built by hand, is an unknown build."""
    code = (
        "import importlib.util, sys, types\n"
        "dnn = types.SimpleNamespace()\n"
        "error, __version__ = Exception, '9.9'\n"
        "def getNumThreads(): return 1\n"
        "def getCPUFeaturesLine(): return 'SSE'\n"
    )
    fake_cv2(tmp_path, code, monkeypatch)
    found = probe_in_child()
    assert (found["version"], found["distribution"]) == ("9.9", "unknown build")
    assert found["importers"] == []


def test_no_cv2_says_what_to_install() -> None:
    """Without cv2 the command exits with 2 and names the pip install, with no traceback."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "conformance.opencv.capability"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "OpenCV is not installed" in done.stderr
    assert "python -m pip install opencv-python-headless" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_library_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImportError inside cv2, as without libGL, is shown with the way out."""
    said = "libGL.so.1: cannot open shared object file: No such file or directory"
    fake_cv2(tmp_path, f"raise ImportError({said!r})", monkeypatch)
    with pytest.raises(ConformanceError, match=r"libGL\.so\.1.*opencv-python-headless"):
        probe_in_child()


def test_cv2_without_dnn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called cv2 that is not OpenCV is told as one without a DNN module."""
    fake_cv2(tmp_path, "", monkeypatch)
    with pytest.raises(ConformanceError, match="has no DNN module"):
        probe_in_child()


def test_crash_on_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cv2 whose import kills the process, as on a wrong CPU, is an error with the signal."""
    fake_cv2(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGILL)", monkeypatch)
    with pytest.raises(ConformanceError, match="SIGILL"):
        probe_in_child()


def test_hanging_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cv2 whose import never ends is an error at the time limit."""
    fake_cv2(tmp_path, "import time; time.sleep(60)", monkeypatch)
    with pytest.raises(ConformanceError, match=r"no answer within the time limit of 2 s"):
        probe_in_child(timeout=2)


def test_probe_begun_early_answers_the_same() -> None:
    """What was begun early is what a probe finds now, whoever asks again."""
    probing = Probing()
    assert probing.answer() == probing.answer() == probe_in_child()


def test_probe_begun_early_is_never_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment has changed since it was begun, OpenCV is probed as it is now."""
    probing = Probing()
    fake_cv2(tmp_path, "", monkeypatch)
    with pytest.raises(ConformanceError, match="has no DNN module"):
        probing.answer()


def test_probe_that_nobody_asks_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends without the answer takes along the child that it began."""
    code = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); "
    fake_cv2(tmp_path, code + "time.sleep(60)", monkeypatch)
    monkeypatch.chdir(tmp_path)
    begin = (
        "import pathlib, time; from conformance.opencv.capability import Probing; p = Probing()\n"
        "while not pathlib.Path('pid').exists() or not pathlib.Path('pid').read_text():\n"
        "    time.sleep(0.01)"
    )
    command = [sys.executable, "-c", begin]
    subprocess.run(command, env=child_environment(), timeout=50, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text(encoding="utf-8")), 0)
