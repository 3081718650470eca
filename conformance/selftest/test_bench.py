"""The command that compares OpenCV wheels: real environments by real pip, on a tiny pack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from conformance.bench import command as commands
from conformance.bench import wheels
from conformance.bench.wheels import Wheel
from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.opencv.timing import Timing, TimingRequest
from conformance.processes import environments
from conformance.processes.child import HERE
from conformance.results.quantities import QUANTITIES

from .benchmarks.__main__ import BENCHMARKS
from .sample_timings import timing
from .tiny import tiny_pack

MODEL = "mobilenet"
WHEEL = "4.12.0.88"
ROUNDS = 7


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's cache folder with a tiny pack, in which environments are made once."""
    root = tmp_path_factory.mktemp("cache")
    tiny_pack(root / "packs", MODEL)
    return root


@pytest.fixture
def bench(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command's arguments but for --opencv, with the environments in `cache`."""
    monkeypatch.setattr(commands, "default_root", lambda: cache / "environments")
    return ["bench", MODEL, "--packs", str(cache / "packs"), "--seconds", "0.02"]


def fake_wheel(folder: Path, code: str, tags: str = "py3-none-any") -> str:
    """Write a wheel whose cv2 is `code`, and return its path."""
    path = folder / f"opencv_python_headless-4.99.0.1-{tags}.whl"
    info = "opencv_python_headless-4.99.0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("cv2/__init__.py", code)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: opencv-python-headless\nVersion: 4.99.0.1\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")
    return str(path)


@pytest.fixture(scope="module")
def itself(cache: Path) -> tuple[int, str, dict[str, Any]]:
    """Status, output and file of a comparison of a wheel with itself."""
    file = cache / "itself.json"
    arguments = ["bench", MODEL, "--packs", str(cache / "packs"), "--seconds", "0.02", "--layers"]
    arguments += ["--opencv", WHEEL, "--threads=1", f"--rounds={ROUNDS}", f"--json={file}"]
    limits = [f"{quantity.option}=9" for quantity in QUANTITIES]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setattr(commands, "default_root", lambda: cache / "environments")
        status = main([*arguments, *limits])
    return status, out.getvalue(), json.loads(file.read_text())


def test_wheel_against_itself(itself: tuple[int, str, dict[str, Any]]) -> None:
    """A wheel compared with itself runs on its own OpenCV, and keeps what every process cost."""
    status, out, document = itself
    assert status == 0
    assert "the same: an A/A comparison" in out
    assert document["complete"] is True
    (comparison,) = document["comparisons"]
    processes = [process for pair in comparison["rounds"] for process in pair]
    assert len(processes) == 2 * ROUNDS
    for process in processes:
        assert process["version"] == "4.12.0"
        assert (process["engine"], process["threads"]) == ("classic", 1)
        assert min(process["load_ms"], process["first_ms"]) > 0
        (warm,) = process["warm"]
        assert (warm["threads"], len(warm["times_ms"]) >= 3) == (1, True)
        assert warm["layers"]["conv1/Conv2D"] > 0
    assert comparison["types"]["conv1/Conv2D"] == "Convolution"
    keys = [finding["quantity"] for finding in comparison["findings"]]
    assert keys == [quantity.key for quantity in QUANTITIES]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells it")
def test_memory_is_the_models(itself: tuple[int, str, dict[str, Any]]) -> None:
    """Memory leaves out interpreter, cv2, its code, and asking what OpenCV offers: 50 MiB."""
    for pair in itself[2]["comparisons"][0]["rounds"]:
        for process in pair:
            assert 0 < process["memory_mib"] < 6 < 50 < process["peak_mib"]


@pytest.fixture
def row(bench: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a row of three versions, of which 4.7.0 needs more memory: all made up."""
    memory = {"4.6.0": 100.0, "4.7.0": 180.0, "4.8.1": 180.0}

    def made_up(spec: str, *_: Any) -> Wheel:
        version = ".".join(spec.split(".")[:3])
        return Wheel(spec, HERE, {"version": version, "threads": 2, "importers": ["tensorflow"]})

    def measured(request: TimingRequest, subject: str, *_: Any) -> Timing:
        assert request.config.threads is not None
        version = subject.split()[-1]
        threads = (request.config.threads, *request.further_threads)
        return timing(10.0, threads, version, memory[version])

    monkeypatch.setattr(commands, "wheel", made_up)
    monkeypatch.setattr(wheels, "time_in_child", measured)
    return [*bench, "--across", "4.6.0.66,4.7.0.72,4.8.1.78"]


def test_row_of_wheels_tells_what_changed_and_where(
    row: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--across ends with 1 where a version needs more than allowed; it and the last are named."""
    file = tmp_path / "bench-row.json"
    assert main([*row, f"--json={file}"]) == 1
    out = capsys.readouterr().out
    for threads in ("1 thread", "2 threads"):
        told = f"memory rose from 100.00 MiB (4.6.0.66) to 180.00 MiB (4.7.0.72), {threads}: 1.800"
        assert told in out
    assert out.count(" rose ") == 2
    assert main([*row, "--fail-memory-above=1.9"]) == 0
    assert main(["history", str(tmp_path)]) == 0
    assert "100.0 -> 180.0 MiB" in capsys.readouterr().out


@pytest.mark.usefixtures("interruptible")
def test_interrupted_comparison_keeps_its_rounds(cache: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130; the rounds there are stay in the file, labelled as incomplete."""
    file = tmp_path / "bench.json"
    code = (
        "from pathlib import Path; from conformance.bench import command; "
        f"command.default_root = lambda: Path({str(cache / 'environments')!r}); "
        "from conformance.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["bench", MODEL, "--packs", str(cache / "packs"), "--opencv", WHEEL]
    arguments += ["--seconds=0.02", "--rounds=500", f"--json={file}"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for_round(file)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in out
    document = json.loads(file.read_text())
    assert document["complete"] is False
    assert document["comparisons"][0]["complete"] is False
    assert document["comparisons"][0]["rounds"]


def wait_for_round(file: Path) -> None:
    """Return once the file holds a round; fail after five minutes: the machine may be busy."""
    for _ in range(3000):
        if file.exists():
            comparisons = json.loads(file.read_text())["comparisons"]
            if comparisons and comparisons[0]["rounds"]:
                return
        time.sleep(0.1)
    pytest.fail("no round within five minutes")


def test_wheel_of_another_name_is_told(
    bench: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not named as a wheel is ends with 2 and says how a wheel is named."""
    wheel = tmp_path / "opencv.whl"
    wheel.touch()
    assert main([*bench, "--opencv", str(wheel)]) == 2
    assert f"--opencv {wheel}: not named as a wheel is" in capsys.readouterr().err


def test_unknown_version_is_told(bench: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A version that does not exist ends with 2, naming option, version and the newest that do."""
    assert main([*bench, "--across", f"4.12.0.1,{WHEEL}"]) == 2
    said = capsys.readouterr().err
    assert "--across 4.12.0.1: pip can't install opencv-python-headless==4.12.0.1" in said
    assert "Traceback" not in said


def test_wheel_for_another_machine_is_told(
    bench: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel that can't be installed here ends with 2 and what pip said."""
    assert main([*bench, "--opencv", fake_wheel(tmp_path, "", "cp27-cp27m-win32")]) == 2
    said = capsys.readouterr().err
    assert "pip can't install" in said
    assert "not a supported wheel" in said


@pytest.mark.skipif(sys.version_info < (3, 10), reason="this Python can run the oldest wheels")
def test_missing_interpreter_is_told(
    bench: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel too old for this Python, and no older one on the PATH, ends with 2 and says which."""
    monkeypatch.setenv("PATH", os.devnull)
    assert main([*bench, "--opencv", "4.5.1.48"]) == 2
    assert "--opencv 4.5.1.48: it needs Python 3.9 or older" in capsys.readouterr().err


def test_wheel_that_cannot_be_imported_is_told(
    bench: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel that installs but fails on import ends with 2 and what the import said."""
    wheel = fake_wheel(tmp_path, "raise ImportError('libGL.so.1: cannot open shared object file')")
    assert main([*bench, "--opencv", wheel]) == 2
    said = capsys.readouterr().err
    assert "was installed but can't be used" in said
    assert "libGL.so.1" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--opencv", "newest"], "not a version"),
        (["--opencv", "nowhere.whl"], "there is no such wheel"),
        ([], "give --opencv once or twice, or --across with two versions or more"),
        (["--opencv", WHEEL, "--threads", "1", "--rounds", "3"], "--rounds 3: give 7 at least"),
        (["--opencv", WHEEL, "--threads", "0"], "--threads 0: give numbers from 1 to"),
        (["--opencv", WHEEL, "--threads", "1,two"], "--threads 1,two: give numbers from 1 to"),
        (["--opencv", WHEEL, "--threads", "1,9999"], "--threads 1,9999: give numbers from 1 to"),
        (["--opencv", WHEEL, "--fail-load-above", "x"], "--fail-load-above x: give a number above"),
        (["--opencv", WHEEL, "--fail-memory-above", "0"], "--fail-memory-above 0: give a number"),
        (["--across", WHEEL], f"--across {WHEEL}: give two versions or more"),
        (["--across", f"newest,{WHEEL}"], "--across newest: not a version"),
        (["--across", "4.6.0.66,4.7.0.72", "--opencv", WHEEL], "--opencv or --across, not both"),
        (["--across", "4.6.0.66,4.7.0.72", "--layers"], "give them with --opencv"),
        (["--opencv", "wheel.whl"], "wheel.whl: there is no such wheel"),
        (["--opencv", __file__], "not a version"),
        (["--opencv", WHEEL, "--fail-above", "nan"], "--fail-above nan: give a number above 0"),
        (["--opencv", WHEEL, "--seconds", "-1"], "--seconds -1: give a number above 0"),
        (["--opencv", "1.0", "--opencv", "2.0", "--opencv", "3.0"], "once or twice"),
        (["--opencv", WHEEL, "--json", "no/such/folder/file.json"], "no such folder"),
    ],
)
def test_bad_argument_is_told(
    bench: list[str], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument that makes no sense ends with 2 before anything is run."""
    assert main([*bench, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_unwritable_file_is_told(
    bench: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A --json that can't be written ends with 2 before the first round."""
    (tmp_path / "bench.json").mkdir()
    arguments = ["--opencv", WHEEL, f"--json={tmp_path / 'bench.json'}"]
    assert main([*bench, *arguments]) == 2
    assert "bench.json: can't be written (Is a directory)" in capsys.readouterr().err


def test_missing_pack_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its pack a model can't be compared, and the command that builds it is named."""
    assert main(["bench", "xception", "--opencv", WHEEL, "--packs", str(tmp_path)]) == 2
    assert "python -m conformance pack build xception" in capsys.readouterr().err


def test_error_of_opencv_is_told(bench: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An engine that the wheel lacks ends with 2 and OpenCV's version and reason."""
    assert main([*bench, "--opencv", WHEEL, "--engine", "new"]) == 2
    said = capsys.readouterr().err
    assert "can't time mobilenet on OpenCV 4.12.0" in said
    assert "no engine 'new'" in said


def test_overhead_is_told_side_by_side(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recording's benchmark prints both medians, their ratio and its interval."""
    asked = ["recording", MODEL, "--packs", str(cache / "packs"), "--repeats", "6"]
    main(asked, BENCHMARKS)
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if " to " in line).split()
    recorded, bare, ratio, low, _, high = (float(cell) if cell != "to" else 0 for cell in row)
    assert low <= ratio <= high
    assert min(recorded, bare) > 0


def test_old_wheels_get_old_numpy() -> None:
    """A wheel from before 4.10 is installed with NumPy 1, later ones with any."""
    needs = {
        version: next(n[1] for n in environments._NEEDS if n[0].contains(version))
        for version in ("4.5.1.48", "4.9.0.80", "4.10.0.84", "5.0.0.93")
    }
    assert list(needs.values()) == ["numpy<2", "numpy<2", "numpy", "numpy"]
    with pytest.raises(ConformanceError, match="not a version"):
        environments._requirement("four")
