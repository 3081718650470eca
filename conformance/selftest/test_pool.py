"""The pool of builders: in which order, with how much memory, and beside who judges."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conformance.pack.builder import jobs_of
from conformance.pack.building import Building
from conformance.pack.pool import UNASKED, Job, Pool, choose
from conformance.pack.store import find_pack, list_packs
from conformance.processes.progress import Event

from .tiny_pack import MODELS, REQUESTS, final_states, tiny_builder

pytestmark = pytest.mark.usefixtures("tiny_producer")


_TAKES_MEMORY = """
import sys, time
from conformance.processes.progress import Event, encode

for line in sys.stdin:
    model = line.strip()
    print(encode(Event(model, "growing", 0.0)), flush=True)
    taken = bytearray(100 << 20)
    with open(sys.argv[1], "a") as log:
        print(model, "begins", file=log, flush=True)
        time.sleep(1.5)
        # Those that are to be at work at once wait for each other, however slowly one starts.
        until = time.monotonic() + 60
        while model in sys.argv[2] and time.monotonic() < until:
            if all(f"{other} begins" in open(sys.argv[1]).read() for other in sys.argv[2]):
                break
            time.sleep(0.05)
        print(model, "ends", file=log, flush=True)
    del taken
    print(encode(Event(model, "built", 1.0, "built")), flush=True)
"""


_LASTS = """
import sys, time
from conformance.processes.progress import Event, encode

for line in sys.stdin:
    model = line.strip()
    print(encode(Event(model, "begun", 0.0)), flush=True)
    time.sleep(60)
    print(encode(Event(model, "built", 1.0, "built")), flush=True)
"""


def pool_of(
    script: str, log: Path, seconds: dict[str, float], together: str = "", **settings: Any
) -> Pool:
    """Return a pool of two builders that run `script`, with a job of so many seconds each."""
    command = (sys.executable, "-c", script, str(log), together)
    memory = settings.pop("each", 1 << 20)
    jobs = [Job(name, command, seconds=s, memory=int(memory * s)) for name, s in seconds.items()]
    return Pool(jobs, at_once=2, **settings)


def test_builders_that_take_too_much_together_are_put_one_after_the_other(tmp_path: Path) -> None:
    """Where two take more memory than was expected of them, the later one is begun anew alone."""
    pool = pool_of(_TAKES_MEMORY, tmp_path / "log", {"a": 1, "b": 2}, memory=150 << 20)
    events = list(pool.events())
    assert final_states(events) == {"a": "built", "b": "built"}
    (put_off,) = [event for event in events if event.step.startswith("put off: 0.2 GiB")]
    first = {"a": "b", "b": "a"}[put_off.model]
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-3:] == [f"{first} ends", f"{put_off.model} begins", f"{put_off.model} ends"]


def test_no_job_is_begun_without_memory_for_it(tmp_path: Path) -> None:
    """A model that does not fit beside another waits for it, and is built alone however large."""
    seconds = {"a": 0.1, "b": 0.2, "c": 5.0}
    pool = pool_of(_TAKES_MEMORY, tmp_path / "log", seconds, "ab", each=1 << 30, memory=1 << 30)
    assert final_states(list(pool.events())) == dict.fromkeys("abc", "built")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:2] == ["c begins", "c ends"]
    assert sorted(lines[2:4]) == ["a begins", "b begins"]


def test_largest_model_is_begun_first_beside_the_quickest(tmp_path: Path) -> None:
    """One builder takes the models of much memory, the other those that are soon done."""
    seconds = {"a": 3.0, "b": 1.0, "c": 9.0, "d": 2.0}
    pool = pool_of(_TAKES_MEMORY, tmp_path / "log", seconds, "bc", memory=1 << 40)
    list(pool.events())
    begun = [x.split()[0] for x in (tmp_path / "log").read_text().splitlines() if "begins" in x]
    assert sorted(begun[:2]) == ["b", "c"]


def test_long_models_follow_the_first_quick_ones() -> None:
    """Beside a large one the quickest is begun for early verdicts, later what takes longest."""
    large, quick, slow = (
        Job(n, (), False, s, m) for n, s, m in (("l", 9, 9), ("q", 2, 1), ("s", 3, 1))
    )
    assert choose([quick, slow], [large], left=5, quick=True) == quick
    assert choose([quick, slow], [large], left=5) == slow
    assert choose([quick, slow], [large], left=0) is None
    assert choose([large, quick, slow], [], left=9, quick=True) == large


def test_builder_gives_way(tmp_path: Path) -> None:
    """A builder has the least priority, of its session too, as who judges is to go first."""
    script = (
        "import os, pathlib, sys; from conformance.processes.progress import Event, encode; "
        "import time; time.sleep(0.5); group = pathlib.Path('/proc/self/autogroup'); "
        "told = group.read_text().split()[-1] if group.exists() else 19; "
        "print(encode(Event(sys.stdin.readline().strip(), f'{os.nice(0)} {told}', 0, 'built')))"
    )
    (event,) = Pool([Job("a", (sys.executable, "-c", script))]).events()
    assert event.step == "19 19"


def test_who_judges_gets_room(tmp_path: Path) -> None:
    """Who wants memory waits until builders have left as much, and no model is begun in it."""
    log = tmp_path / "log"

    def count(word: str) -> int:
        return log.read_text().count(word) if log.exists() else 0

    seconds = dict.fromkeys("abcd", 1.0)
    pool = pool_of(_TAKES_MEMORY, log, seconds, each=2 << 30, memory=5 << 30)
    building = Building(pool, lambda *_: nullcontext(lambda told: None))
    while count("begins") < 2:
        time.sleep(0.05)
    with building.room((3 << 30) + UNASKED):
        assert count("ends") >= 1
        for _ in range(20):
            assert count("begins") - count("ends") <= 1
            time.sleep(0.05)
    building.wait_for_all()
    assert count("ends") == 4


def test_nobody_waits_for_room_of_builders_that_are_stopped(tmp_path: Path) -> None:
    """Builders that are stopped leave room, whatever they were at."""
    pool = pool_of(_LASTS, tmp_path / "log", {"a": 1}, memory=1 << 40)
    events = pool.events()
    assert next(events).step == "begun"
    pool.reserved = 2 << 40
    assert not pool.has_room()
    pool.close()
    assert pool.has_room()
    events.close()  # type: ignore[attr-defined]


def building_of(packs: Path, seconds: float, told: list[Event]) -> Building:
    """Return the building of REQUESTS by one builder, told of in `told`."""
    pool = Pool(jobs_of(REQUESTS, packs, command=tiny_builder(packs, seconds)), at_once=1)
    return Building(pool, lambda *_: nullcontext(told.append))


def test_pack_is_used_while_others_are_built(tmp_path: Path) -> None:
    """Who waits for one pack goes on when it is there; how far the others are is told meanwhile."""
    told: list[Event] = []
    building = building_of(tmp_path / "packs", 0.3, told)
    assert building.seconds_until("xception") == inf
    building.wait("resnet50")  # the one of most memory comes first
    assert [e.step[:13] for e in told if e.final] == ["built, 1 of 3"]
    assert find_pack(tmp_path / "packs", REQUESTS[1]) is not None
    assert building.seconds_until("resnet50") == 0
    while building.seconds_until("xception") == inf:  # the next, as it takes the longest
        building.tell()
    assert 1 <= building.seconds_until("xception") < inf
    building.wait_for_all()
    assert final_states(told) == dict.fromkeys(MODELS, "built")
    assert building.failures == {}


def test_time_to_go_counts_what_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the others take is told by the pace of all that was done, that of the others too."""
    told: list[Event] = []
    # A clock by which each event is told a second after the one before.
    clock = SimpleNamespace(monotonic=lambda: float(len(told)))
    monkeypatch.setattr("conformance.pack.building.time", clock)
    events = [Event("a", "begun", 0.0), Event("b", "begun", 0.0), Event("b", "built", 1.0, "built")]
    monkeypatch.setattr(Pool, "events", lambda _: iter(events))
    pool = Pool([Job("a", (), seconds=1000, memory=1), Job("b", (), seconds=1, memory=1)])
    Building(pool, lambda *_: nullcontext(told.append)).wait("b")
    # In 2 s 2 of a and 1 of b were done, so that 998 take 665; by b's pace alone it were 33 min.
    assert told[-1].step == "built, 1 of 2, about 11 min 5 s to go"


def test_building_that_is_stopped_leaves_nobody_waiting(tmp_path: Path) -> None:
    """After the end of a run nothing is built any more, and what was not says that."""
    told: list[Event] = []
    building = building_of(tmp_path / "packs", 30, told)
    while not told:
        building.tell()
    building.close()
    building.wait_for_all()
    assert set(building.failures) == set(MODELS)
    assert list_packs(tmp_path / "packs") == []
