"""OpenCL: the network runs on the device, or the run says that it did not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.opencv import net
from conformance.opencv.capability import probe_in_child
from conformance.opencv.run import run_candidate
from conformance.pack.format import Pack
from conformance.processes.opencl import opencl_environment

from . import sabotaged_child
from .test_plugin import packs, run_suite
from .tiny import tiny_pack

__all__ = ["packs"]  # a fixture

OPENCL = RunConfig(target="opencl")


@pytest.fixture(scope="module")
def device() -> str:
    """The OpenCL device of this machine."""
    try:
        return str(probe_in_child(config=OPENCL)["device"])
    except ConformanceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The tiny network's pack."""
    return tiny_pack(tmp_path_factory.mktemp("packs"))


def reason(run: CandidateRun) -> str:
    """Return why the run failed, at set-up, and before it gave anything."""
    assert run.failure is not None, "the run should have failed"
    assert run.failure.stage == "setup"
    assert run.outputs is None
    return str(run.failure)


def test_network_runs_on_the_device(pack: Pack, device: str) -> None:
    """The device is given kernels, the answers are right, and have other bits than the CPU's."""
    run, plain = (run_candidate(pack, config) for config in (OPENCL, RunConfig()))
    assert not run.failures, f"{device}: {run.failure}"
    assert run.outputs is not None
    assert plain.outputs is not None
    assert run.kernels is not None
    assert run.kernels > 2
    np.testing.assert_allclose(run.outputs, pack.load("outputs_f64"), atol=1e-5)
    assert (run.outputs != plain.outputs).any()
    assert plain.kernels is None


@pytest.mark.parametrize("engine", ["classic", "new"])
def test_silent_run_on_the_cpu_fails(
    pack: Pack, device: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where OpenCV computes on the CPU without a word, no kernel shows it."""
    if engine not in probe_in_child()["engines"]:
        pytest.skip(f"this OpenCV has no {engine} engine")
    monkeypatch.setenv("SABOTAGE", "silent-cpu")
    monkeypatch.setattr("conformance.opencv.run.CHILD", sabotaged_child.__name__)
    said = reason(run_candidate(pack, RunConfig(engine=engine, target="opencl")))
    assert "its device was given 0 kernels where " in said
    assert "ran on the CPU" in said, device


def test_half_precision_that_is_none_fails(pack: Pack, device: str) -> None:
    """A device without float16, as PoCL's, that computes in float32 does not pass for one with."""
    half = RunConfig(target="opencl_fp16")
    assert net.missing_kernels(_Net(), half, {"BASIC_k1x1_FP16_1": 3}) == ""
    if "PoCL" not in device:
        pytest.skip(f"{device} may have float16")
    assert "ran in float32" in reason(run_candidate(pack, half))


class _Net:
    """A classic engine's network of three convolutions and a pooling."""

    def getLayerNames(self) -> list[str]:
        return ["a", "b", "c", "d"]

    def getLayerId(self, name: str) -> str:
        return name

    def getLayer(self, name: str) -> Any:
        kind = "Pooling" if name == "d" else "Convolution"
        return type("Layer", (), {"type": kind})()


def test_convolutions_on_the_cpu_are_missed() -> None:
    """A device that was given fewer kernels than there are convolutions did not run the network."""
    assert net.missing_kernels(_Net(), OPENCL, {"conv": 3}) == ""
    said = net.missing_kernels(_Net(), OPENCL, {"softmax": 2})
    assert "given 2 kernels where 3 at least are needed" in said


def test_kernel_that_was_not_compiled_is_named() -> None:
    """What the driver's compiler said is in the reason; its probe of an option is not."""
    log = "OpenCL program build log: dnn/{}\nStatus -11: CL_X\n-D A=1\nerror: {}\n"
    printed = log.format("dummy", "no such option") + log.format("softmax", "unknown CPU")
    assert net.not_compiled(printed) == ["OpenCL did not compile dnn/softmax (error: unknown CPU)"]
    assert net.missing_kernels(_Net(), OPENCL, {}, printed).endswith(
        "dnn/softmax (error: unknown CPU)"
    )


@pytest.mark.usefixtures("no_device")
def test_target_without_a_device_is_one_error(packs: Path) -> None:
    """It names the target and says how to get a device, before any model is judged."""
    done = run_suite(packs, "--target", "opencl")
    assert done.returncode == 4
    said = done.stdout + done.stderr
    assert said.count("finds no OpenCL device; PoCL makes one of the CPU: apt-get install") == 1
    assert "target opencl can't be used: OpenCV" in said


def test_device_that_compiles_nothing_is_one_error(
    packs: Path, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PoCL told to compile with an option that nobody knows: what it said is repeated."""
    if "PoCL" not in device:
        pytest.skip(f"{device} is no PoCL")
    monkeypatch.setenv("POCL_EXTRA_BUILD_FLAGS", "-abacus")
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("OPENCV_OPENCL_CACHE_ENABLE", "0")
    done = run_suite(packs, "--target", "opencl")
    assert done.returncode == 4
    said = done.stdout + done.stderr
    assert "but that runs no kernel of OpenCV's" in said
    assert "Invalid build option: -abacus" in said


def test_run_says_which_device(packs: Path, device: str) -> None:
    """The header names the device; the results are of the target."""
    done = run_suite(packs, "--engine", "classic", "--target", "opencl", "--results", "ocl")
    assert done.returncode == 0, done.stdout
    assert f"conformance: OpenCL device {device}" in done.stdout
    (file,) = packs.glob("ocl/*.jsonl")
    assert file.name.endswith("-classic-opencl.jsonl")


def test_what_the_user_set_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that was chosen by OpenCV's own variable stays the one."""
    monkeypatch.setenv("OPENCV_OPENCL_DEVICE", ":GPU:1")
    assert opencl_environment()["OPENCV_OPENCL_DEVICE"] == ":GPU:1"


@pytest.fixture
def pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of pyopencl on a machine whose system has no OpenCL."""
    folder = tmp_path / "pyopencl" / ".libs"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for name in ("libOpenCL-1.so.1", "libpocl-2.so"):
        (folder / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    monkeypatch.delenv("OPENCV_OPENCL_RUNTIME", raising=False)
    return folder


def test_pocl_of_pypi_serves_where_the_system_has_none(pypi: Path) -> None:
    """Its loader and its driver are those that pip installed; a system's own OpenCL goes before."""
    found = opencl_environment()
    assert found["OPENCV_OPENCL_RUNTIME"] == str(pypi / "libOpenCL-1.so.1")
    assert found["OCL_ICD_VENDORS"] == str(pypi / "libpocl-2.so")
    assert found["PYOPENCL_HOME"] == str(pypi.parent)


def test_real_models_agree_on_the_device(
    mobilenet_packs: Path, device: str, tmp_path: Path
) -> None:
    """mobilenet and resnet50, whose pack is built first, pass every check on OpenCL."""
    shutil.copytree(mobilenet_packs, tmp_path, dirs_exist_ok=True)
    command = [sys.executable, "-m", "pytest", "--pyargs", "conformance.suite", "-q"]
    options = ["--packs", str(tmp_path), "--target", "opencl", "--engine", "classic"]
    choice = [word for model in ("mobilenet", "resnet50") for word in ("--model", model)]
    done = subprocess.run(
        [*command, *options, *choice], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{device}: {done.stdout}"
    verdicts = [line.split()[:4] for line in done.stdout.splitlines() if "classic opencl" in line]
    assert verdicts == [[m, "classic", "opencl", "passed"] for m in ("resnet50", "mobilenet")]


def test_opencv_loads_no_opencl_that_nobody_asked_for(device: str) -> None:
    """With TensorFlow in the same process the driver's compiler would end it by SIGSEGV."""
    code = (
        "import tensorflow\n"
        "from conformance.opencv.capability import available_targets, load_cv2\n"
        "print(available_targets(load_cv2()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{device}: {done.stderr[-2000:]}"
    assert "opencl" not in done.stdout
