"""Children under test: real processes that end in every way, and the words for it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from conformance.errors import ConformanceError
from conformance.processes import environments
from conformance.processes.child import Child, Ending, ask_module, child_environment, run_child
from conformance.processes.pool import process_pool


def python(code: str, timeout: float = 60) -> Ending:
    """Return how a child that runs the code ended."""
    return run_child([sys.executable, "-c", code], timeout)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL (out of memory?)"),
        ("import os; os.kill(os.getpid(), 34)", "was killed by "),
        ("import time; time.sleep(60)", "gave no answer within the time limit of 3 s"),
    ],
)
def test_end_is_put_in_words(code: str, how: str) -> None:
    """An exit code, a signal, most of all SIGKILL, and the time limit are told apart."""
    assert python(code, 3 if "sleep" in code else 60).how.startswith(how)


def test_last_lines_are_quoted() -> None:
    """The text of an ending has the last twenty lines of stderr, and stdout is kept apart."""
    ending = python("import sys; print('out'); [print(i, file=sys.stderr) for i in range(99)]")
    assert ending.output == "out\n"
    assert str(ending).splitlines()[1:] == ["Its last output:", *(f"  {i}" for i in range(79, 99))]


def test_closed_child_leaves_no_helper() -> None:
    """Closing a child kills what it started, too."""
    code = (
        "import subprocess, sys, time; helper = subprocess.Popen(['sleep', '600']); "
        "print(helper.pid, flush=True); time.sleep(600)"
    )
    with closing(Child([sys.executable, "-c", code], piped=True)) as child:
        assert child.process.stdout is not None
        helper = int(child.process.stdout.readline())
        os.kill(helper, 0)
    assert gone(helper)


def gone(pid: int) -> bool:
    """Say whether the process ends within half a minute, collected by its new parent or not."""
    for _ in range(600):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X"):
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would overrule a run is taken out, this package is found first, changes are made."""
    monkeypatch.setenv("OPENCV_FORCE_DNN_ENGINE", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("UNWANTED", "1")
    found = child_environment(UNWANTED=None, WANTED="1")
    assert not {"OPENCV_FORCE_DNN_ENGINE", "UNWANTED"} & set(found)
    assert (found["WANTED"], found["OPENCV_LOG_LEVEL"]) == ("1", "WARNING")
    root = str(Path(__file__).resolve().parents[2])
    assert found["PYTHONPATH"].split(os.pathsep) == [root, "elsewhere"]
    assert child_environment(Path("alone"))["PYTHONPATH"] == "alone"


def test_answer_is_free_of_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others print is not in a child's answer; its refusal and its death are errors."""
    (tmp_path / "answering.py").write_text(
        "import os, sys\n"
        "from conformance.errors import ConformanceError\n"
        "from conformance.processes.serve import answer_once\n"
        "def compute():\n"
        "    os.system('echo noise'); print('noise')\n"
        "    if sys.argv[1] == 'refuse': raise ConformanceError('two\\nlines')\n"
        "    return {'answer': 1 / int(sys.argv[1])}\n"
        "answer_once(compute)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask_module("answering", ["2"], 60, "asking") == {"answer": 0.5}
    with pytest.raises(ConformanceError, match=r"^asking: two\nlines$"):
        ask_module("answering", ["refuse"], 60, "asking")
    with pytest.raises(ConformanceError, match=r"^asking: its process ended with exit code 1\.\n"):
        ask_module("answering", ["0"], 60, "asking")


def test_killed_process_of_a_pool_is_told() -> None:
    """A function whose process is killed is one error that says what it was doing."""
    error = pytest.raises(ConformanceError, match=r"^halving: a process was killed \(out of mem")
    with error, process_pool(1, "halving") as pool:
        pool.submit(os._exit, signal.SIGKILL).result()


@pytest.mark.parametrize("works", [True, False])
def test_uv_makes_environments_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """uv is taken where it is there; where it fails, venv and pip are, and the error is theirs."""
    commands: list[list[str]] = []

    def run(command: list[str], timeout: float, environment: object) -> Ending:
        commands.append(command)
        if command[0] != "uv":
            return Ending(1, "", "ERROR: pip says no")
        folder.mkdir(exist_ok=True)
        return Ending(0 if works else 2, "", "uv says no")

    folder = tmp_path / "4.12.0"
    monkeypatch.setattr(environments, "run_child", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    if works:
        environments._make(folder, sys.executable, ["opencv", "numpy"])
        assert (folder / "ready").exists()
        assert [command[:2] for command in commands] == [["uv", "venv"], ["uv", "pip"]]
        return
    with pytest.raises(ConformanceError, match=r"can't make the .*: ERROR: pip says no"):
        environments._make(folder, sys.executable, ["opencv", "numpy"])
    assert not folder.exists()
