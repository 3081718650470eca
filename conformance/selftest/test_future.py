"""An OpenCV as it is to become (future/cv2): ENGINE_OPENCV alone, no TensorFlow importer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

from conformance.opencv.capability import probe_in_child
from conformance.opencv.scripts import read_call
from conformance.reference.formats import build_conversion

from .test_plugin import run_suite
from .tiny import graph_nodes, tiny_pack, tiny_weights

FUTURE = Path(__file__).with_name("future")
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    "new" not in probe_in_child()["engines"], reason="the engine that stays came with OpenCV 5"
)


@pytest.fixture(autouse=True)
def _future(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process that a test starts has that OpenCV."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FUTURE), str(ROOT))))


def conformance(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the suite."""
    command = [sys.executable, "-m", "conformance", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_capabilities_go_by_name() -> None:
    """The engine is found by its new name, the TensorFlow importer is missed, the version stays."""
    found = probe_in_child()
    assert found["engine_constants"] == {"new": "ENGINE_OPENCV"}
    assert found["importers"] == ["onnx", "tflite"]
    assert found["version"].startswith("5.")
    call = read_call("onnx", "new", found["engine_constants"], "model.onnx")
    assert call == 'cv2.dnn.readNetFromONNX(os.path.join(here, "model.onnx"))'


def test_models_are_judged(mobilenet_packs: Path, tmp_path: Path) -> None:
    """Without --importer the ONNX files are made and judged; no test errs for want of what is gone.

    One of the two models is a real one.
    """
    (tmp_path / "mobilenet").symlink_to(mobilenet_packs / "mobilenet")
    tiny_pack(tmp_path, "mobilenetv2")
    done = run_suite(tmp_path, keyword="mobilenet or mobilenetv2")
    assert done.returncode == 0, done.stdout
    assert "has no importer tensorflow: onnx is judged" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("mobilenet")]
    assert [row[:4] for row in rows] == [
        [name, "onnx", "new", "passed"] for name in ("mobilenet", "mobilenetv2")
    ]
    named = conformance("predict", "mobilenet", "--opencv-only", "--packs", str(tmp_path))
    assert "onnx importer, new engine" in named.stdout, named.stderr


def test_fault_is_localised(tmp_path: Path) -> None:
    """One of a batch norm's scales off by a thousandth in the ONNX file is found where it acts."""
    weights = tiny_weights()
    weights["bn/scale"][3] *= 1.001
    build_conversion(tiny_pack(tmp_path, nodes=graph_nodes(weights)), "onnx")
    done = conformance("localize", "mobilenet", "--packs", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "first node out of the noise" in done.stdout
    assert ": 'bn/add', AddV2, OpenCV layer" in done.stdout


def test_pack_without_a_file_says_what_to_make(tmp_path: Path) -> None:
    """`predict` on a pack that has the frozen graph only names the command that makes a file."""
    tiny_pack(tmp_path)
    done = conformance("predict", "mobilenet", "--opencv-only", "--packs", str(tmp_path))
    assert done.returncode == 2
    assert f"pack build mobilenet --importer onnx --packs {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_gone_is_missed(tmp_path: Path) -> None:
    """--importer tensorflow and --fusion are errors that say so, not answers of something else."""
    pack = tiny_pack(tmp_path)
    build_conversion(pack, "onnx")
    asked = ("localize", "mobilenet", "--packs", str(tmp_path))
    done = conformance(*asked, "--importer", "tensorflow")
    assert (done.returncode, "has no importer 'tensorflow'" in done.stderr) == (2, True)
    done = conformance(*asked, "--fusion", "off")
    assert (done.returncode, "has no fusion switch" in done.stdout) == (1, True)
