"""Building: each pack once, whoever asks; a builder that dies takes only its model with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest
from packaging.markers import Marker

from conformance.errors import ConformanceError
from conformance.pack.builder import PYTHONS, build_command, jobs_of, missing_packs
from conformance.pack.format import Pack, open_pack
from conformance.pack.pool import Job, Pool
from conformance.pack.request import SCHEMA, PackRequest
from conformance.pack.schedule import Build, Turn
from conformance.pack.store import find_pack, list_packs, pack_lock
from conformance.processes.progress import Event

from .tiny_pack import MODELS, REQUESTS, build_tiny, final_states, tiny_builder, write_tiny

pytestmark = pytest.mark.usefixtures("tiny_producer")


def run(
    root: Path, build: Build = build_tiny, force: bool = False
) -> tuple[list[Event], list[str]]:
    """Build the three models; return the events and who failed."""
    events: list[Event] = []
    turns = [Turn(request, root, build, events.append, force) for request in REQUESTS]
    return events, [turn.request.model for turn in turns if turn.attempt() == "failed"]


def test_missing_packs_are_built_and_then_found(tmp_path: Path) -> None:
    """The first run builds every pack, the second finds them, a forced one builds them again."""
    assert missing_packs(REQUESTS, tmp_path) == REQUESTS
    assert final_states(run(tmp_path)[0]) == dict.fromkeys(MODELS, "built")
    assert missing_packs(REQUESTS, tmp_path) == []
    assert final_states(run(tmp_path)[0]) == dict.fromkeys(MODELS, "found")
    assert final_states(run(tmp_path, force=True)[0]) == dict.fromkeys(MODELS, "built")


def test_steps_of_the_builder_are_reported(tmp_path: Path) -> None:
    """The steps that the building function names arrive as events of its model, in order."""
    steps = [event.step for event in run(tmp_path)[0] if event.model == "resnet50"]
    assert steps == ["starting", "filling", "built"]


def test_damaged_pack_is_not_missing_but_built_again(tmp_path: Path) -> None:
    """A damaged pack is left for its reader to complain of; building repairs it and says why."""
    run(tmp_path)
    pack = find_pack(tmp_path, REQUESTS[0])
    assert pack is not None
    pack.graph_path.write_bytes(b"short")
    assert missing_packs(REQUESTS, tmp_path) == []
    events, _ = run(tmp_path)
    assert final_states(events)["mobilenet"] == "built"
    assert any("frozen_graph.pb: has 5 bytes" in event.step for event in events)
    assert open_pack(pack.path)


def test_unreadable_pack_is_not_missing_without_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be built, a pack of a newer schema is left for its reader."""
    monkeypatch.setattr("conformance.pack.request.producer_versions", lambda flavour: None)
    write_tiny(tmp_path, "mobilenet", schema=SCHEMA + 1)
    assert missing_packs(REQUESTS, tmp_path) == REQUESTS[1:]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConformanceError("no weights for xception"), "no weights for xception"),
        (ZeroDivisionError("a bug"), "Traceback"),
    ],
)
def test_one_failure_does_not_stop_the_others(
    tmp_path: Path, error: Exception, expected: str
) -> None:
    """A model that cannot be built is reported with its message; the others are built."""

    def build(request: PackRequest, root: Path, step: Callable[[str], None]) -> Pack:
        if request.model == "resnet50":
            raise error
        return build_tiny(request, root, step)

    events, failed = run(tmp_path, build)
    assert failed == ["resnet50"]
    assert final_states(events) == {"mobilenet": "built", "resnet50": "failed", "xception": "built"}
    (failure,) = [event for event in events if event.state == "failed"]
    assert failure.step.startswith(expected)
    assert str(error) in failure.step


def test_locked_model_is_put_off_and_not_built_twice(tmp_path: Path) -> None:
    """A model that another process is building is waited for, while the rest goes on."""
    packs, told = tmp_path / "packs", tmp_path / "told"
    slow = tiny_builder(packs, until=told)
    other = iter(Pool(jobs_of(REQUESTS[:1], packs, command=slow)).events())
    assert next(other).step == "starting"
    events = []
    for event in Pool(jobs_of(REQUESTS, packs, command=tiny_builder(packs))).events():
        events.append(event)
        if event.state == "waiting":
            told.touch()
    assert final_states(events) == {"resnet50": "built", "xception": "built", "mobilenet": "found"}
    assert [e.model for e in events if e.final][-1] == "mobilenet"
    assert [e.state for e in events if e.model == "mobilenet"] == ["waiting", "found"]
    assert [event.state for event in other] == ["working", "built"]


def test_pools_at_once_share_the_work(tmp_path: Path) -> None:
    """Three pools of builders started at once on one folder build each model exactly once."""
    packs, command = tmp_path / "packs", tiny_builder(tmp_path / "packs", 0.3)

    def build(_: int) -> dict[str, str]:
        return final_states(list(Pool(jobs_of(REQUESTS, packs, command=command)).events()))

    with ThreadPoolExecutor(3) as executor:
        states = list(executor.map(build, range(3)))
    assert Counter((tmp_path / "log").read_text().split()) == dict.fromkeys(MODELS, 1)
    for model in MODELS:
        assert sorted(s[model] for s in states) == ["built", "found", "found"]
    assert len(list_packs(packs)) == 3


def test_lock_may_be_taken_twice_by_one_process(tmp_path: Path) -> None:
    """A builder that holds a model's lock can write its pack without waiting on itself."""
    with pack_lock(tmp_path, "mobilenet", timeout=0):
        assert open_pack(build_tiny(REQUESTS[0], tmp_path, print).path)


def test_lock_of_a_dead_builder_is_free(tmp_path: Path) -> None:
    """A lock held by a process that was killed does not block the next builder."""
    script = (
        "import sys, time; from pathlib import Path; from conformance.pack.store import pack_lock\n"
        "with pack_lock(Path(sys.argv[1]), 'mobilenet'): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    assert run(tmp_path)[1] == []


def test_child_is_asked_for_what_was_requested(tmp_path: Path) -> None:
    """The child's command line carries models, weights, graph, folder and options."""
    request = PackRequest("xception", weights="imagenet", graph="raw")
    command = build_command([request], tmp_path, force=True, verbose=True)
    wanted = ["xception", "--weights", "imagenet", "--graph", "raw", "--force", "--verbose"]
    assert set(wanted) <= set(command)
    assert command[command.index("--packs") + 1] == str(tmp_path)


def test_events_of_the_child_arrive(tmp_path: Path) -> None:
    """The parent sees the child's events, one final event a model, and the packs are there."""
    packs = tmp_path / "packs"
    events = list(Pool(jobs_of(REQUESTS, packs, command=tiny_builder(packs))).events())
    assert final_states(events) == dict.fromkeys(MODELS, "built")
    assert missing_packs(REQUESTS, packs) == []


_DIES_AT = """
import os, signal, sys
from conformance.processes.progress import Event, encode

for line in sys.stdin:
    model = line.strip()
    print(encode(Event(model, "calibrating", 1.5)), flush=True)
    if model == "resnet50":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), int(sys.argv[1]))
    print(encode(Event(model, "built", 2.0, "built")), flush=True)
"""


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGKILL, "SIGKILL (out of memory?)"), (signal.SIGSEGV, "SIGSEGV")]
)
def test_builder_that_dies_fails_only_its_model(tmp_path: Path, number: int, said: str) -> None:
    """A builder killed at one model fails that model with step and log; the rest goes on."""

    def command(requests: list[PackRequest], root: Path) -> list[str]:
        return [sys.executable, "-c", _DIES_AT, str(int(number))]

    events = list(Pool(jobs_of(REQUESTS, tmp_path, command=command)).events())
    assert final_states(events) == {"mobilenet": "built", "resnet50": "failed", "xception": "built"}
    (failure,) = [event for event in events if event.state == "failed"]
    assert f"was killed by {said} at step 'calibrating'" in failure.step
    assert failure.step.endswith("last words")


_DIES_BETWEEN = """
import sys
from conformance.processes.progress import Event, encode

print(encode(Event(sys.stdin.readline().strip(), "built", 2.0, "built")), flush=True)
sys.stdin.readline()
"""


def test_builder_that_dies_between_models_fails_only_the_next(tmp_path: Path) -> None:
    """A builder that ends after a model, before it says a word of the next, loses just that one."""
    command = (sys.executable, "-c", _DIES_BETWEEN)
    pool = Pool([Job(name, command) for name in "abcd"], at_once=1)
    assert sorted(final_states(list(pool.events())).values()) == ["built"] * 2 + ["failed"] * 2


def test_builder_that_does_not_start_fails_every_model(tmp_path: Path) -> None:
    """A builder that exits before its first event: every model fails, with the exit code."""

    def command(requests: list[PackRequest], root: Path) -> list[str]:
        return [sys.executable, "-c", "import sys; print('noise'); sys.exit('no such thing')"]

    events = list(Pool(jobs_of(REQUESTS, tmp_path, command=command)).events())
    assert final_states(events) == dict.fromkeys(MODELS, "failed")
    assert all("exit code 1" in e.step and "no such thing" in e.step for e in events)


def test_closing_the_events_stops_the_child(tmp_path: Path) -> None:
    """A parent that stops listening, as at Ctrl-C, ends the child."""
    script = (
        "import os, time; from conformance.processes.progress import Event, encode; "
        "print(encode(Event('mobilenet', str(os.getpid()), 0.0)), flush=True); time.sleep(60)"
    )
    events = Pool(
        jobs_of(REQUESTS, tmp_path, command=lambda *_: [sys.executable, "-c", script])
    ).events()
    child = int(next(iter(events)).step)
    events.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_building_without_tensorflow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where TensorFlow is absent no child is started and the error names the extra."""
    monkeypatch.setattr("conformance.pack.builder.producer_versions", lambda flavour: None)
    with pytest.raises(ConformanceError, match=r"\[tensorflow\]"):
        list(Pool(jobs_of(REQUESTS, tmp_path)).events())
    legacy = [PackRequest("mobilenet", keras="legacy")]
    with pytest.raises(ConformanceError, match="tf_keras"):
        list(Pool(jobs_of(legacy, tmp_path)).events())
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(ConformanceError, match=r"for Python 3\.10 to 3\.13, and this is .* 3\.9"):
        list(Pool(jobs_of(REQUESTS, tmp_path)).events())


def test_pythons_of_tensorflow_are_those_of_the_extra() -> None:
    """The Pythons that an error names are those on which the extra installs TensorFlow."""
    path = Path(__file__).parents[2] / "pyproject.toml"
    (marker,) = re.findall(r'"tensorflow>=[\d.]+; (.+)"', path.read_text(encoding="utf-8"))
    fits = [
        minor for minor in range(30) if Marker(marker).evaluate({"python_version": f"3.{minor}"})
    ]
    assert ((3, fits[0]), (3, fits[-1])) == PYTHONS


def test_real_builder_builds_a_real_pack(
    mobilenet_packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that pytest starts builds MobileNet's pack, and a second start finds it."""
    monkeypatch.undo()
    requests = [PackRequest("mobilenet")]
    assert missing_packs(requests, mobilenet_packs) == []
    assert [e.state for e in Pool(jobs_of(requests, mobilenet_packs)).events()] == ["found"]
