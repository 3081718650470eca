"""The evaluation as users run it: the command and pytest, on small images and the tiny network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.imagenet import checks as judging
from conformance.imagenet.command import progress
from conformance.imagenet.dataset import Dataset, Entry
from conformance.imagenet.evaluation import Evaluation, Plan, Tally
from conformance.imagenet.shards import Job
from conformance.imagenet.statistics import compare
from conformance.opencv.capability import probe_in_child
from conformance.processes.machine import cores
from conformance.results.evaluations import read_results

from .benchmarks import evaluation as throughput
from .benchmarks.__main__ import BENCHMARKS
from .imagenet_sample import IMAGES, numbers
from .test_plugin import run_suite


@pytest.fixture
def home(imagenet_home: Path) -> Path:
    """The folder with packs, images and labels."""
    return imagenet_home


def options(home: Path) -> list[str]:
    """Return the options of the evaluation; TensorFlow answers once for all of these tests."""
    given = {
        "packs": home / "packs",
        "imagenet-dir": home / "val",
        "imagenet-labels": home / "val.txt",
        "imagenet-cache": home / "cache",
        "batch-size": 2,
    }
    return [f"--{name}={value}" for name, value in given.items()]


def command(home: Path, results: Path, *more: str) -> list[str]:
    """Return the arguments of the command on mobilenet."""
    return ["evaluate", "mobilenet", *options(home), f"--results={results}", *more]


@pytest.fixture(scope="module")
def evaluated(imagenet_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("results")
    assert main(command(imagenet_home, folder)) == 0
    (path,) = folder.glob("imagenet/*.jsonl")
    return path


def test_table_has_the_known_accuracy(
    home: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with both frameworks' top-1 and top-5 in percent, and leaves no shards."""
    assert main(command(home, tmp_path)) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "85.000   85.000" in line]
    assert ["TensorFlow" in row for row in rows] == [True, False]
    assert ["OpenCV" in row for row in rows] == [False, True]
    files = sorted(path.name for path in (tmp_path / "imagenet").iterdir())
    assert files == ["TF_mobilenet_log.txt", evaluated.name, f"{evaluated.stem}.png"]
    picture = (tmp_path / "imagenet" / f"{evaluated.stem}.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


def test_results_do_not_depend_on_their_chart(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where what draws the chart is missing, that is told, and everything else is there."""
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert main(command(home, tmp_path, "--subset=8", "--jobs=1")) == 0
    told = capsys.readouterr()
    assert "no chart: " in told.err
    (path,) = (tmp_path / "imagenet").glob("*.jsonl")
    assert f"{path.name}: 0 bad images, 0 answered differently" in " ".join(told.out.split())
    assert read_results(path).summary["images"] == 8


def _crash(*_: object) -> None:
    os.abort()


def test_results_survive_a_crash_of_their_chart(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where what draws the chart aborts, that is told, and the table is printed."""
    monkeypatch.setattr("conformance.imagenet.chart.draw", _crash)
    assert main(command(home, tmp_path, "--subset=8", "--jobs=1")) == 0
    told = capsys.readouterr()
    assert "no chart: " in told.err
    assert "a process was killed" in told.err
    assert "0 answered differently" in " ".join(told.out.split())


def test_progress_is_whole_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the longest name and all images, no figure of the progress bar is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    with progress("inceptionresnetv2") as report:
        report(Tally(50_000, 50_000, 50_000, 40_000, 40_001))
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "50000/50000" in line
    assert line.endswith("top-1 OpenCV 80.00, TF 80.00 %")
    assert "…" not in line


def test_disagreement_fails(
    home: Path,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mean L1 over the tolerance ends the command with 1 and says what was allowed."""
    monkeypatch.setattr(judging, "allowed_l1", lambda *_: 1e-12)
    assert main(command(home, tmp_path)) == 1
    assert ", allowed 1e-12" in capsys.readouterr().err


def test_killed_run_is_resumed(home: Path, evaluated: Path, tmp_path: Path) -> None:
    """After kill -9 in the middle, --resume ends with the numbers of an uninterrupted run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance", *command(home, tmp_path, "--jobs=1")]
    )
    shards = tmp_path / "imagenet" / f"{evaluated.stem}.shards"
    while not list(shards.glob("*.npz")) and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.npz")}
    assert 0 < len(done) < 15
    assert main(command(home, tmp_path, "--resume")) == 0
    assert numbers(read_results(tmp_path / "imagenet" / evaluated.name)) == numbers(
        read_results(evaluated)
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batch-size=0"], "--batch-size 0: give 1 or more"),
        (["--max-bad=101"], "--max-bad 101: give percent"),
        (["--subset=5", "--seed=-1"], "--seed -1: give a number from 0"),
        (["--subset=121"], "--subset 121: give a number from 1 to 120"),
        (["--engine=newest"], "--engine 'newest': OpenCV "),
        (["--imagenet-dir="], "register at https://image-net.org"),
        (["--weights=imagenet"], "pack build mobilenet --weights imagenet"),
    ],
)
def test_bad_option(
    home: Path, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be done ends with status 2 and a line that says what to do."""
    assert main(command(home, tmp_path, *more)) == 2
    assert said in capsys.readouterr().err


def test_pytest_judges_when_asked(home: Path, evaluated: Path, tmp_path: Path) -> None:
    """-m imagenet judges top-1, top-5 and L1, skips what Keras publishes, writes the results."""
    given = [*options(home), f"--results={tmp_path}", f"--junit-xml={tmp_path / 'junit.xml'}"]
    done = run_suite(home / "packs", "-m", "imagenet", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed, 1 skipped" in done.stdout
    for name in ("model", "opencv", "engine"):
        assert f'<property name="{name}" value="' in (tmp_path / "junit.xml").read_text()
    assert numbers(read_results(tmp_path / "imagenet" / evaluated.name)) == numbers(
        read_results(evaluated)
    )


def test_each_engine_has_results_of_its_own(home: Path, tmp_path: Path) -> None:
    """Engines named together are evaluated one by one, and none writes over the other's results."""
    engines = probe_in_child()["engines"]
    asked = [*options(home), "--subset=8", "--jobs=1", f"--engine={','.join(engines)}"]
    done = run_suite(home / "packs", "-m", "imagenet", *asked, f"--results={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [read_results(path) for path in (tmp_path / "imagenet").glob("*.jsonl")]
    assert sorted(result.header["engine"] for result in found) == engines


def test_benchmark_prints_rates_and_memory(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints ours, the straightforward evaluator's, the limit, and GiB a core."""
    alone = {"decode": 5.0, "tensorflow 1": 20.0, "opencv 1": 15.0}
    asked: list[int] = []

    def measured(job: Job, entries: tuple[Entry, ...], weights: str) -> throughput.Rates:
        asked.append(len(entries))
        return throughput.Rates(45.0, 25.0, 50.0, alone)

    def peak(arguments: object, images: int, workers: str) -> int:
        assert images == IMAGES
        return cores() << (30 if workers == "--jobs" else 31)

    monkeypatch.setattr(throughput, "measure", measured)
    monkeypatch.setattr(throughput, "peak_of_evaluation", peak)
    given = options(home)[:3]
    assert main(["evaluation", "mobilenet", *given, "--images=300", "--rounds=2"], BENCHMARKS) == 0
    assert asked == [300, 300]
    told = capsys.readouterr().out
    parts = [r"this evaluation +45\.0", r"25\.0 +1\.80 x", r"50\.0 +0\.90 x", r"w 1 +20\.00"]
    parts += [rf"--jobs {cores()} .* 1\.00 ", rf"--workers {cores()} .* 2\.00 "]
    for part in parts:
        assert re.search(part, told), told


def test_pytest_leaves_it_out_unless_asked(home: Path) -> None:
    """A plain run has no evaluation; asked for without data, the error says how to get it."""
    plain = run_suite(home / "packs", "--collect-only", "-q")
    assert "test_top1" in plain.stdout
    assert "test_imagenet" not in plain.stdout
    broken = home / "broken.txt"
    broken.write_text("ILSVRC2012_val_00000001.JPEG 1000\n")
    given = [f"--imagenet-dir={home / 'val'}", f"--imagenet-labels={broken}"]
    faulty = run_suite(home / "packs", "-m", "imagenet", *given)
    assert faulty.returncode == pytest.ExitCode.USAGE_ERROR
    assert "broken.txt:1: class 1000 is out of range" in faulty.stderr
    asked = run_suite(home / "packs", "-m", "imagenet")
    assert asked.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ILSVRC2012_img_val.tar" in asked.stderr
    assert "Traceback" not in asked.stdout + asked.stderr


@pytest.mark.parametrize(
    ("top1", "images", "recipe", "passed"),
    [
        (0.70424 + 0.0049, 50_000, "keras", True),
        (0.70424 - 0.0051, 50_000, "keras", False),
        (0.70424 - 0.0051, 50_000, "tutorial", None),
        (0.70424 - 0.0051, 49_999, "keras", None),
    ],
)
def test_published_accuracy(top1: float, images: int, recipe: str, passed: bool | None) -> None:
    """With Keras' recipe and all images an accuracy over half a point off fails, else nothing."""
    config = RunConfig()
    job = Job("mobilenet", "", "", "", 224, "tf", 1000, recipe, config)
    dataset = Dataset(Path(), (Entry("a.JPEG", 0, 1),) * images)
    reached = {"top1": {"value": top1}, "top5": {"value": 0.89504}}
    same = compare(np.array([True]), np.array([True]))
    summary = {"opencv": reached, "tensorflow": reached}
    found = Evaluation(Plan(job, dataset, "5.0.0", "imagenet"), summary, [], [], same, same)
    finding = judging.published_accuracy(found, None)  # type: ignore[arg-type]
    assert finding.passed is passed
    synthetic = replace(found, plan=replace(found.plan, weights="synthetic"))
    assert judging.published_accuracy(synthetic, None).passed is None  # type: ignore[arg-type]
