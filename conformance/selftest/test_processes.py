"""Children under test: real processes that end in every way, and the words for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import ConformanceError
from conformance.processes import environments
from conformance.processes.child import Child, Ending, ask_module, child_environment, run_child
from conformance.processes.pool import process_pool
from conformance.processes.server import FrameworkError, Server, server, servers_ended

from .benchmarks.memory import peak_of_tree


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


def test_answer_that_finds_no_room() -> None:
    """A child whose answer does not fit on the disk says so in one line, and fails."""
    code = "from conformance.processes.serve import answer_once; answer_once(lambda: 1)"
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "the answer can't be written: [Errno 28] No space left on device\n",
    )


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that answers side by side: n when two are asked at a time, or it hangs or aborts."""
    (tmp_path / "answering.py").write_text(
        "import os, threading, time\n"
        "from conformance.processes.serve import serve\n"
        "both = threading.Barrier(2)\n"
        "def answer(asked):\n"
        "    both.wait(30)\n"
        "    if asked['n'] == 'abort': os.abort()\n"
        "    if asked['n'] == 'hang': time.sleep(600)\n"
        "    return {'n': asked['n']}\n"
        "serve(lambda request: answer, side_by_side=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(Server("answering", {}, 30)) as server:
        yield server


def asked_at_once(server: Server, *asked: tuple[object, float]) -> list[object]:
    """Return what the server answers, or the text of its error, to each n with its time limit."""

    def ask(one: tuple[object, float]) -> object:
        n, timeout = one
        try:
            return server.ask({"n": n}, timeout, f"number {n}")["n"]
        except FrameworkError as error:
            return error.message

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(ask, asked))


def test_requests_are_answered_side_by_side(answering: Server) -> None:
    """Requests that wait for each other are answered, each with its own answer."""
    assert asked_at_once(answering, *((n, 30.0) for n in range(8))) == list(range(8))


def test_late_request_is_named(answering: Server) -> None:
    """A request that takes too long ends the server; all that asked are told which it was."""
    late, other = asked_at_once(answering, ("hang", 1.0), ("hang", 30.0))
    assert late == other
    assert str(late).startswith(
        "number hang: the process of TensorFlow gave no answer within the time limit of 1 s."
    )


def test_death_of_a_server_is_told_to_all(answering: Server) -> None:
    """A server that dies is told with the signal to all that asked, and to whoever asks later."""
    told = asked_at_once(answering, ("abort", 30.0), ("hang", 30.0))
    told += asked_at_once(answering, (1, 30.0))
    assert [str(one).splitlines()[0] for one in told] == [
        "the process of TensorFlow was killed by SIGABRT."
    ] * 3


def test_no_server_starts_while_they_end(answering: Server) -> None:
    """Where servers are ended nobody starts another, and afterwards it is started again."""
    first = server("answering", {}, 30)
    with servers_ended():
        assert first.process.poll() is not None
        with pytest.raises(FrameworkError, match="TensorFlow is not started: its user ends"):
            server("answering", {}, 30)
    again = server("answering", {}, 30)
    with closing(again):
        assert again is not first


def test_killed_process_of_a_pool_is_told() -> None:
    """A function whose process is killed is one error that says what it was doing."""
    error = pytest.raises(ConformanceError, match=r"^halving: a process was killed \(out of mem")
    with error, process_pool(1, "halving") as pool:
        pool.submit(os._exit, signal.SIGKILL).result()


def test_memory_of_all_processes_is_added() -> None:
    """The peak of a process counts what it started, of which two had 100 MiB each at a time."""
    large = "import sys, time; held = b'x' * (100 << 20); print(flush=True); sys.stdin.read()"
    start = f"subprocess.Popen([sys.executable, '-c', {large!r}], stdin=-1, stdout=-1)"
    code = f"import subprocess, sys; both = [{start} for _ in 'ab']\n"
    code += "for one in both: one.stdout.readline()\n"
    code += "import time; time.sleep(0.5)\n"
    with (
        closing(Child([sys.executable, "-c", code])) as child,
        peak_of_tree(child.process.pid) as peak,
    ):
        assert child.ending().code == 0
    assert 200 << 20 < peak.bytes < 300 << 20


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


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """After a parent's SIGKILL its child ends, and so does what that started."""
    (tmp_path / "lasting.py").write_text(
        "import conformance.processes, subprocess, sys, time\n"
        "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(f'{helper.pid}\\n')\n"
        "time.sleep(600)\n"
    )
    notes = tmp_path / "pid"
    code = (
        "import sys, time; from conformance.processes.child import begin_module; "
        "child = begin_module('lasting', sys.argv[1:]); "
        "print(child.process.pid, flush=True); time.sleep(600)"
    )
    paths = os.pathsep.join([str(tmp_path), child_environment()["PYTHONPATH"]])
    environment = child_environment(PYTHONPATH=paths)
    command = [sys.executable, "-c", code, str(notes)]
    with closing(Child(command, environment, piped=True)) as parent:
        assert parent.process.stdout is not None
        child = int(parent.process.stdout.readline())
        while not (notes.exists() and notes.read_text().endswith("\n")):
            time.sleep(0.02)
        os.kill(parent.process.pid, signal.SIGKILL)  # it alone: nobody ends its child
        assert gone(child)
        assert gone(int(notes.read_text()))


def test_interrupted_pool_says_nothing(tmp_path: Path) -> None:
    """Of Ctrl-C, which all processes of a terminal get, the one that has the pool tells alone."""
    code = (
        "import signal, sys, time\n"
        "from conformance.processes.pool import process_pool\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        with process_pool(2, 'a pool') as pool:\n"
        "            idle, busy = pool.submit(abs, 1), pool.submit(time.sleep, 60)\n"
        "            idle.result()\n"
        "            print('begun', flush=True)\n"
        "            busy.result()\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit('interrupted')\n"
    )
    script = tmp_path / "pooling.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, "interrupted\n")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)],
)
def test_interrupt_that_is_ignored_stays_so(ours: Any, theirs: signal.Handlers) -> None:
    """A pool's processes ignore Ctrl-C where their parent does, as behind nohup."""
    before = signal.signal(signal.SIGINT, ours)
    try:
        with process_pool(1, "a pool") as pool:
            assert pool.submit(signal.getsignal, signal.SIGINT).result() is theirs
        assert signal.getsignal(signal.SIGINT) is ours
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupt_waits_for_a_process_that_is_being_started() -> None:
    """A process of a pool gets all that it is told, though Ctrl-C comes while it is started."""
    code = (
        "import multiprocessing.popen_spawn_posix as spawning, os, signal, threading, time\n"
        "from conformance.processes.pool import process_pool\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "launch = spawning.util.spawnv_passfds\n"
        "def interrupted(*given):\n"
        "    pid = launch(*given)\n"
        "    if b'resource_tracker' not in b''.join(map(os.fsencode, given[1])):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.5)\n"
        "    return pid\n"
        "spawning.util.spawnv_passfds = interrupted\n"
        "threading.Thread(target=time.sleep, args=(3,), daemon=True).start()\n"
        "try:\n"
        "    with process_pool(1, 'a pool') as pool: pool.submit(abs, 1).result()\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    command, environment = [sys.executable, "-c", code], child_environment()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_pool_ends_with_its_parent(tmp_path: Path) -> None:
    """After a parent's SIGKILL the processes of its pool end, those without work, too."""
    (tmp_path / "pooling.py").write_text(
        "import os, sys, time\n"
        "from conformance.processes.pool import process_pool\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(1, 'pooling') as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    command = [sys.executable, str(tmp_path / "pooling.py")]
    with closing(Child(command, child_environment(), piped=True)) as parent:
        assert parent.process.stdout is not None
        worker = int(parent.process.stdout.readline())
        os.kill(parent.process.pid, signal.SIGKILL)  # it alone
        assert gone(worker)


def test_folder_of_a_killed_process_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a process that was killed goes with the next one; one that is used stays."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "import os, sys; from conformance.processes.scratch import Scratch; "
        "folder = Scratch(); print(folder.name, flush=True); "
        "sys.stdin.read() if len(sys.argv) > 1 else os.kill(os.getpid(), 9)"
    )
    killed = Path(python(code).output.strip())
    assert killed.is_dir()
    with closing(Child([sys.executable, "-c", code, "lives"], piped=True)) as child:
        assert child.process.stdout is not None
        used = Path(child.process.stdout.readline().strip())
        for folder in (killed, used):
            os.utime(folder, (1, 1))  # not about to be locked
        run_child([sys.executable, "-c", code])
        assert not killed.exists()
        assert used.is_dir()


def test_environments_in_a_folder_that_can_not_be(tmp_path: Path) -> None:
    """A folder of environments that can't be made is one error that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConformanceError, match=r"file/deeper: environments .* can't be made"):
        environments.prepare("4.12.0", tmp_path / "file" / "deeper", tmp_path)


def test_package_that_finds_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying the package to a full disk is one error that names the folder."""

    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("from", "to", "[Errno 28] No space left on device: 'to'")])

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(ConformanceError, match=r"can't be written \(no space left\)"):
        environments.copy_package(tmp_path)
