"""Inference times as users record them: pytest in a process of its own, on tiny real packs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import ConformanceError
from conformance.pack.builder import require_tensorflow
from conformance.pack.format import open_pack
from conformance.results.quantities import ONCE

from .graphdef import changed
from .test_plugin import MODEL, run_suite
from .tiny import graph_nodes, tiny_pack, tiny_weights

TIMES = "conformance.suite.test_inference_time"
QUICK = ("--benchmark-max-time=0.05", "--benchmark-min-rounds=3")


def record(packs: Path, *arguments: str, rows: str = "opencv") -> subprocess.CompletedProcess[str]:
    """Run the test of inference times on the rows of one model."""
    command = [sys.executable, "-m", "pytest", "--pyargs", TIMES, "-p", "no:cacheprovider"]
    chosen = ["--packs", str(packs), "-k", f"mobilenet and not mobilenetv2 and {rows}"]
    return subprocess.run(
        [*command, *chosen, *QUICK, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=packs,
        check=False,
    )


def benchmarks(path: Path) -> dict[str, dict[str, Any]]:
    """Return the benchmarks of one of pytest-benchmark's files by the parameters in their name."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {entry["param"]: entry for entry in document["benchmarks"]}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pack whose inputs and classes are as many as MobileNet's."""
    root = tmp_path_factory.mktemp("packs")
    tiny_pack(root, MODEL, size=224, classes=1000)
    return root


@pytest.fixture(scope="module")
def recorded(packs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that --results named in a run which timed OpenCV's classic engine."""
    folder = tmp_path_factory.mktemp("results")
    options = ("--engine=classic", "--threads=1", "--batch=3", f"--results={folder}")
    done = record(packs, *options, f"--junit-xml={folder / 'junit.xml'}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_times_carry_their_circumstances(recorded: Path, packs: Path) -> None:
    """A recorded time names model, versions, engine, threads, CPU, batch, pack and other costs."""
    (path,) = recorded.glob("bench-*.json")
    (entry,) = benchmarks(path).values()
    info = entry["extra_info"]
    assert (entry["group"], entry["param"]) == (MODEL, f"{MODEL}-opencv")
    assert path.name == f"bench-{info['opencv']}.json"
    pack = open_pack(next((packs / MODEL).glob("[!.]*")))
    told = {"model": MODEL, "framework": "opencv", "engine": "classic", "threads": 1, "batch": 3}
    assert info.items() >= {**told, "pack": pack.manifest.digest()}.items()
    assert info["cpu"]
    assert info["peak_mib"] > 0
    assert all(info[quantity.key] > 0 for quantity in ONCE)
    assert "tensorflow" in info


def test_recording_leaves_verdicts_alone(recorded: Path) -> None:
    """A run that only records times writes no results file of cases over another run's."""
    assert list(recorded.glob("*.jsonl")) == []


def test_junit_names_the_row(recorded: Path) -> None:
    """JUnit XML carries model, framework, OpenCV version and engine of a recorded time."""
    text = (recorded / "junit.xml").read_text(encoding="utf-8")
    for name, value in (("model", MODEL), ("framework", "opencv"), ("engine", "classic")):
        assert f'<property name="{name}" value="{value}"' in text


def test_saved_files_compare(recorded: Path, tmp_path: Path) -> None:
    """`pytest-benchmark compare` shows two of the files side by side."""
    (path,) = recorded.glob("bench-*.json")
    other = tmp_path / "bench-other.json"
    other.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(path), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{MODEL}-opencv") == 2


def test_tensorflow_is_timed_both_ways(packs: Path, tmp_path: Path) -> None:
    """The frozen function and the tutorial's eager call are rows of their own, with a peak each."""
    try:
        require_tensorflow("keras3")
    except ConformanceError as error:
        pytest.skip(str(error))
    junit = tmp_path / "junit.xml"
    options = (f"--results={tmp_path}", "--threads=1", f"--junit-xml={junit}")
    done = record(packs, *options, rows="tensorflow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PytestWarning" not in done.stdout
    assert junit.read_text(encoding="utf-8").count('<property name="tensorflow" value="') == 2
    found = benchmarks(next(tmp_path.glob("bench-*.json")))
    assert sorted(found) == [f"{MODEL}-tensorflow", f"{MODEL}-tensorflow-eager"]
    for entry in found.values():
        info = entry["extra_info"]
        assert info["framework"] == entry["param"].removeprefix(f"{MODEL}-")
        assert info["tensorflow"][0].isdigit()
        assert info["peak_mib"] > 100


def test_plain_run_records_nothing(packs: Path) -> None:
    """A run that judges leaves the times out; -m inference_time runs just them."""
    plain = run_suite(packs, "--collect-only", "-q")
    assert "test_top1" in plain.stdout
    assert "test_inference_time" not in plain.stdout
    asked = run_suite(packs, "--collect-only", "-q", "-m", "inference_time")
    assert f"test_inference_time[{MODEL}-" in asked.stdout
    assert "test_top1" not in asked.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "2"), "can't be recorded under pytest-xdist"),
        (("--batch", "0"), "--batch 0: give 1 or more"),
    ],
)
def test_unfit_recording_is_refused(packs: Path, arguments: tuple[str, ...], said: str) -> None:
    """What would record nothing, or nonsense, stops the run with one line and status 4."""
    done = record(packs, *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_recording_without_its_plugin_is_refused(packs: Path) -> None:
    """Where pytest-benchmark is turned off, the run says so instead of failing inside."""
    done = run_suite(packs, "-m", "inference_time", "-p", "no:benchmark")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pytest-benchmark, which is turned off" in done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_network_that_does_not_run_is_a_failure(tmp_path: Path) -> None:
    """Where OpenCV gives no answer the row fails with OpenCV's reason; known, it is skipped."""
    nodes = changed(graph_nodes(tiny_weights(), 16), "conv1/Relu", op="NoSuchOp")
    tiny_pack(tmp_path, MODEL, nodes=nodes)
    done = record(tmp_path, "--engine=classic")
    assert done.returncode == 1
    assert "nothing to time: OpenCV" in done.stdout
    known = tmp_path / "known.toml"
    stages = 'stage = "parse"\nreason = "no such op"\n'
    known.write_text(f'schema = 1\n[[failure]]\nmodel = "{MODEL}"\n{stages}')
    done = record(tmp_path, "--engine=classic", f"--known-failures={known}", "-rs")
    assert done.returncode == 0, done.stdout
    assert "known failure: no such op" in done.stdout
