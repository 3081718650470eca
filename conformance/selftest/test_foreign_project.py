"""A project that has nothing to do with the suite, in an environment that has the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

# Its options and markers have names of the suite's, and one test looks at what pytest imported.
PROJECT = {
    "pytest.ini": """
[pytest]
addopts = --strict-markers -p no:cacheprovider
markers =
    imagenet: of a data set
    inference_time: slow
    stage(name): of a play
""",
    "conftest.py": """
def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=1)
    parser.addoption("--model", default="T")
    parser.addoption("--workers", default="none")

def pytest_report_header(config):
    return f"distribution: {config.option.dist}"
""",
    "test_own.py": """
import sys
import pytest

def test_options(request):
    assert [request.config.getoption(name) for name in ("--seed", "--model")] == [1, "T"]

@pytest.mark.imagenet
def test_images():
    pass

@pytest.mark.inference_time
def test_time(benchmark):
    benchmark(len, "x")

@pytest.fixture(params=["bag", "box"])
def pack(request):
    return request.param

@pytest.mark.stage("left")
def test_stage(pack):
    assert pack == "bag"

def test_imports():
    ours = {name for name in sys.modules if name.split(".")[0] == "conformance"}
    assert ours <= {"conformance", "conformance.plugin"}
    assert "cv2" not in sys.modules
""",
}
PLUGIN_OFF = ("-p", "no:conformance")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's folder."""
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def no_cv2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing cv2 fails in each process of the test."""
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "cv2.py").write_text("raise ImportError('no cv2 here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(missing), *sys.path]))


def run(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Return the status of pytest in the folder, and the lines it printed, without the times."""
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [re.sub(r" in [0-9.]+s", "", line) for line in lines]


def outcomes(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Return the status, and the outcome of each test."""
    status, lines = run(folder, "-rA", "-q", "--tb=no", *arguments)
    words = ("PASSED", "FAILED", "ERROR", "SKIPPED")
    return status, sorted(line for line in lines if line.startswith(words))


def test_the_package_is_an_entry_point() -> None:
    """pytest loads the plugin of the installed package, without which nothing here is tested."""
    names = {entry.value for entry in metadata.entry_points().select(group="pytest11")}
    assert "conformance.plugin" in names


@pytest.mark.parametrize("cv2", ["cv2", "no_cv2"])
def test_same_tests_with_the_same_outcomes(
    project: Path, cv2: str, request: pytest.FixtureRequest
) -> None:
    """The project's tests all run, marked or not, with the status they have without the plugin."""
    if cv2 == "no_cv2":
        request.getfixturevalue("no_cv2")
    status, found = outcomes(project)
    assert (status, found) == outcomes(project, *PLUGIN_OFF)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert [line.split(" - ")[0] for line in found] == [
        "FAILED test_own.py::test_stage[box]",
        "PASSED test_own.py::test_images",
        "PASSED test_own.py::test_imports",
        "PASSED test_own.py::test_options",
        "PASSED test_own.py::test_stage[bag]",
        "PASSED test_own.py::test_time",
    ]


def test_its_marker_and_its_options_work(project: Path) -> None:
    """-m imagenet runs the project's own test, and --seed and --model are the project's options."""
    assert outcomes(project, "-m", "imagenet") == (0, ["PASSED test_own.py::test_images"])
    status, found = outcomes(project, "--seed=7", "--model", "A", "-k", "test_options")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "[7, 'A']" in found[0]


def test_help_and_markers_show_nothing_of_the_suite(project: Path) -> None:
    """--help and --markers print the same as without the plugin."""
    for argument in ("--help", "--markers"):
        # The help of pytest-benchmark tells the time.
        arguments = (argument, "-p", "no:benchmark")
        assert run(project, *arguments) == run(project, *arguments, *PLUGIN_OFF)


def test_xdist_spreads_its_tests_as_usual(project: Path) -> None:
    """-n 2 keeps pytest-xdist's way of spreading tests; the suite has them in groups."""
    status, lines = run(project, "-n", "2", "-k", "not box")
    assert status == 0
    assert "distribution: load" in lines


def test_benchmarks_on_xdist_are_none_of_our_business(project: Path) -> None:
    """--benchmark-only -n 2 says what it says without the plugin."""
    arguments = ("--benchmark-only", "-n", "2", "-q")
    assert run(project, *arguments) == run(project, *arguments, *PLUGIN_OFF)


SUITE = ("--pyargs", "conformance.suite", "--collect-only", "-q")


def test_naming_the_suite_wakes_the_plugin(tmp_path: Path) -> None:
    """From any folder the suite can be asked for by its module's name, options and all."""
    status, lines = run(tmp_path, *SUITE, "--model=mobilenet")
    assert status == 0
    assert any("test_top1[mobilenet-" in line for line in lines)


def test_suite_without_cv2_says_so(tmp_path: Path, no_cv2: None) -> None:
    """A run of the suite itself, and only that, is refused where cv2 is missing."""
    status, lines = run(tmp_path, *SUITE)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "no cv2 here" in "\n".join(lines)
