"""The suite where TensorFlow is not installed: a fresh environment, packs built elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from conformance.results.cases import read_results

from .imagenet_sample import sample_pack
from .tiny import tiny_pack

CHECKOUT = Path(__file__).resolve().parent.parent.parent
MODEL = "mobilenet"


@pytest.fixture(scope="module")
def light_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with this package, OpenCV and no TensorFlow."""
    home = tmp_path_factory.mktemp("light")
    python = home / "bin" / "python"
    uv = shutil.which("uv")
    venv.create(home, with_pip=uv is None)
    install = [uv, "pip", "install", "--python", str(python)] if uv else _pip(python)
    command = [*install, "--quiet", f"{CHECKOUT}[headless]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "install"]


def run(python: Path | str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the environment's Python away from the checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    command = [str(python), "-m", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def verdicts(folder: Path) -> dict[str, dict[str, str]]:
    """Return {file: {case: outcome}} of a folder of results."""
    files = sorted(folder.glob("*.jsonl"))
    return {f.name: {c["id"]: c["outcome"] for c in read_results(f).cases} for f in files}


def test_same_verdicts_without_tensorflow(light_python: Path, tmp_path: Path) -> None:
    """Packs are judged where TensorFlow can't be imported, with the verdicts it has elsewhere."""
    packs = tmp_path / "packs"
    tiny_pack(packs, MODEL)
    absent = subprocess.run(
        [light_python, "-c", "import tensorflow"], capture_output=True, check=False
    )
    assert absent.returncode != 0
    suite = ["pytest", "--pyargs", "conformance.suite", "-k", "mobilenet and not mobilenetv2"]
    suite += ["-p", "no:cacheprovider", f"--packs={packs}"]
    light = run(light_python, tmp_path, *suite, f"--results={tmp_path / 'light'}")
    assert light.returncode == 0, light.stdout + light.stderr
    assert "TensorFlow not installed" in light.stdout
    run(sys.executable, tmp_path, *suite, f"--results={tmp_path / 'here'}")
    here = verdicts(tmp_path / "here")
    assert here
    assert verdicts(tmp_path / "light") == here


def test_missing_pack_says_what_to_run(light_python: Path, tmp_path: Path) -> None:
    """Without pack and TensorFlow a model is an error with the command that builds it, no skip."""
    suite = ["pytest", "--pyargs", "conformance.suite", "-k", "test_top1 and xception"]
    done = run(light_python, tmp_path, *suite, f"--packs={tmp_path}", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "python -m conformance pack build xception --packs" in done.stdout
    assert "skipped" not in done.stdout


def test_only_opencv_is_timed_without_tensorflow(light_python: Path, tmp_path: Path) -> None:
    """Without TensorFlow the rows of OpenCV are timed, and those of TensorFlow say why not."""
    tiny_pack(tmp_path, MODEL)
    suite = ["pytest", "--pyargs", "conformance.suite.test_inference_time", "-rs"]
    suite += ["-k", "mobilenet and not mobilenetv2", "--engine=default", f"--packs={tmp_path}"]
    suite += ["-p", "no:cacheprovider", "--benchmark-max-time=0.05", f"--results={tmp_path}"]
    done = run(light_python, tmp_path, *suite)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert "TensorFlow is not installed" in done.stdout
    assert len(list(tmp_path.glob("bench-*.json"))) == 1


def test_own_model_is_judged_by_path_and_by_name(light_python: Path, tmp_path: Path) -> None:
    """A pack of a user's model is judged without TensorFlow, with its file at hand or without."""
    from .own_models import classifier_v1, graph_v1

    graph_v1(tmp_path / "net.pb", classifier_v1, "prob")
    built = run(sys.executable, tmp_path, "conformance", "pack", "build", "net.pb", "--packs=packs")
    assert built.returncode == 0, built.stdout + built.stderr
    suite = ["pytest", "--pyargs", "conformance.suite", "-p", "no:cacheprovider"]
    suite += ["--packs=packs", "--model", "net.pb", "-k", "not test_blob"]
    for _ in ("by path", "by name"):
        done = run(light_python, tmp_path, *suite)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "net.pb: output 'prob': a softmax of 7 classes" in done.stdout
        (tmp_path / "net.pb").unlink(missing_ok=True)


def test_predict_without_tensorflow(light_python: Path, tmp_path: Path) -> None:
    """Without TensorFlow pictures are predicted from a pack, and its answer is told as missing."""
    sample_pack(tmp_path)
    predict = ["conformance", "predict", MODEL, "--packs", str(tmp_path)]
    done = run(light_python, tmp_path, *predict)
    assert done.returncode == 0, done.stderr
    assert "class ID  confidence  label" in done.stdout
    assert "TensorFlow: not installed here" in done.stdout
    found = json.loads(run(light_python, tmp_path, *predict, "--json").stdout)
    assert found["difference"] is None
    assert found["tensorflow"]["missing"].startswith("not installed here")
    explained = run(light_python, tmp_path, *predict, "--explain")
    assert explained.returncode == 2
    assert "--explain needs TensorFlow" in explained.stderr
    absent = run(light_python, tmp_path, "conformance", "predict", "xception", "--packs", ".")
    assert absent.returncode == 2
    assert "python -m conformance pack build xception --packs" in absent.stderr
