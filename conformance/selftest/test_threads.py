"""Times of another number of threads than asked for are refused, on each side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.bench import wheels
from conformance.bench.wheels import Plan
from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.opencv import timing
from conformance.opencv.capability import load_cv2
from conformance.opencv.timing import Timing, TimingRequest
from conformance.pack.builder import require_tensorflow
from conformance.pack.format import Pack
from conformance.processes.child import HERE
from conformance.suite.test_inference_time import too_busy

from .sample_timings import timing as timing_of_process
from .tiny import tiny_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A tiny pack."""
    return tiny_pack(tmp_path_factory.mktemp("packs"), "mobilenet")


class Stubborn:
    """OpenCV, but that it goes on with seven threads whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        """Return what OpenCV has of that name."""
        return (lambda: 7) if name == "getNumThreads" else getattr(load_cv2(), name)


def test_opencv_is_asked_how_many_it_uses(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenCV that does not take the number of threads is no inference to be timed."""
    images, config = pack.load("inputs"), RunConfig(threads=2)
    threads = load_cv2().getNumThreads()
    timing.load_inference(pack.graph_path, images, config)
    monkeypatch.setattr(timing, "load_cv2", Stubborn)
    with pytest.raises(ValueError, match="asked for 2 threads but OpenCV says it uses 7"):
        timing.load_inference(pack.graph_path, images, config)
    load_cv2().setNumThreads(threads)


def test_tensorflow_is_asked_how_many_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorFlow that already runs with another number of threads is refused."""
    try:
        require_tensorflow("keras3")
    except ConformanceError as error:
        pytest.skip(str(error))
    import tensorflow as tf

    from conformance.reference import timing as reference

    threading = tf.config.threading

    def begun(threads: int) -> None:
        raise RuntimeError("cannot be modified after initialization")

    # Other tests in this process count on it.
    monkeypatch.setattr(reference, "disable_op_determinism", lambda: None)
    for name in ("intra", "inter"):
        monkeypatch.setattr(threading, f"set_{name}_op_parallelism_threads", begun)
        monkeypatch.setattr(threading, f"get_{name}_op_parallelism_threads", lambda: 5)
    with pytest.raises(ConformanceError, match=r"5 threads .* instead of 2 and 1"):
        reference._set_threads(2)


@pytest.mark.parametrize(
    ("seconds", "cpu", "threads", "told"),
    [(2.0, 2.2, 1, ""), (2.0, 3.8, 1, "1.90 threads at work, not 1"), (0.1, 0.4, 1, "")],
)
def test_work_of_more_threads_is_noticed(
    seconds: float, cpu: float, threads: int, told: str
) -> None:
    """The processor's time betrays threads that neither framework owns up to, if it is enough."""
    assert too_busy(seconds, cpu, threads) == told


def test_wheels_on_other_threads_are_not_compared() -> None:
    """Wheels that choose other numbers of threads are refused, which says what to do."""
    found = {"version": "A", "threads": 1, "importers": ["tensorflow"]}
    wheel = wheels.Wheel("4.5.1.48", HERE, found)
    other = replace(wheel, spec="4.12.0.88", found={**found, "threads": 2})
    assert wheels.own_threads([wheel, wheel]) == 1
    with pytest.raises(ConformanceError, match=r"4.5.1.48 on 1, 4.12.0.88 on 2.*--threads"):
        wheels.own_threads([wheel, other])


def test_rounds_favour_no_wheel_and_no_number_of_threads(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wheel runs once a round, as often before its neighbour as after, on each number."""
    asked: list[tuple[str, int]] = []

    def fake(request: TimingRequest, subject: str, *_: Any) -> Timing:
        assert request.config.threads is not None
        asked.append((subject[-1], request.config.threads))
        return timing_of_process(10.0, (request.config.threads, *request.further_threads))

    monkeypatch.setattr(wheels, "time_in_child", fake)
    found = {"version": "A", "threads": 2, "importers": ["tensorflow"]}
    row = tuple(wheels.Wheel(v, HERE, {**found, "version": v}) for v in "ABC")
    (*_, last) = wheels.run(Plan(row, TimingRequest("", ""), (1, 2), 24), pack)
    assert (last.error, len(last.rounds)) == ("", 24)
    for threads in (1, 2):
        rounds = ["".join(v for v, n in asked if n == threads)[i : i + 3] for i in range(0, 36, 3)]
        assert {"".join(sorted(names)) for names in rounds} == {"ABC"}
        for pair in (("A", "B"), ("B", "C")):
            assert sum(names.index(pair[0]) < names.index(pair[1]) for names in rounds) == 6
