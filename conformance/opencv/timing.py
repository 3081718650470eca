"""What OpenCV costs: time and memory, in this process (for pytest-benchmark) or in one of its own.

An inference is what a user waits for: an array in (setInput), an array out (forward). The first
also sets up the net. ``python -m conformance.opencv.timing REQUEST`` is the child's side of
`time_in_child`; it needs cv2 and NumPy only, so that it runs beside any OpenCV wheel.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import Array, RunConfig
from conformance.errors import ConformanceError
from conformance.processes.child import HERE, Interpreter, ask_module
from conformance.processes.inference import Infer, clocked, repeated
from conformance.processes.machine import file_pages_mib, peak_mib, reset_peak
from conformance.processes.serve import answer_once

from . import net
from .capability import available_targets, load_cv2


@dataclass(frozen=True)
class TimingRequest:
    """What one process is to time."""

    graph: str  # the path of the file
    inputs: str  # of the images, a .npy file
    # Engine "default" means the one this OpenCV takes by itself. The file is read, and the first
    # inference runs, on config.threads; None means OpenCV's own choice.
    config: RunConfig = field(default_factory=RunConfig)
    batch: int = 1  # images an inference
    further_threads: Sequence[int] = ()  # numbers of threads to time warm inferences with, after
    layers: bool = False  # time each layer too
    seconds: float = 1.0  # of warm inferences with each number of threads,
    least: int = 3  # but at least so many of them
    most: int = 200  # and at most
    layout: str = "NCHW"  # of the blob that the file takes
    values: Optional[int] = None  # that it answers an image, None for a model of several outputs


@dataclass(frozen=True)
class Warm:
    """Warm inferences: the ms of each, in order, and {layer: median ms} if asked for."""

    threads: int
    times_ms: list[float]
    layers: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """What one process measured."""

    version: str
    engine: str
    threads: int  # with which the file was read and the first inference ran
    load_ms: float  # to read the file
    first_ms: float  # the first inference
    # What the process needed at most until it was warm, less what the interpreter, cv2 and the
    # images took before the file was read, and the pages of cv2's code since; None where the
    # system does not tell.
    memory_mib: Optional[float]
    peak_mib: Optional[float]  # the whole of it
    warm: list[Warm]  # with `threads`, then with each of the further numbers
    types: dict[str, str]  # {layer: OpenCV's type of it}, empty where layers were not asked for

    def warm_on(self, threads: int) -> Optional[Warm]:
        """Return the warm inferences with that number of threads, None where there are none."""
        return next((warm for warm in self.warm if warm.threads == threads), None)


def timing_of(values: Mapping[str, Any]) -> Timing:
    """Return the Timing of plain values, as `asdict` gives them and JSON keeps them."""
    return Timing(**{**values, "warm": [Warm(**warm) for warm in values["warm"]]})


def load_inference(
    graph: Path, images: Array, config: RunConfig, layout: str = "NCHW"
) -> tuple[Any, Infer]:
    """Return the net and a function that runs float32 NHWC `images` through it, once a call.

    layout: of the blob that it takes.

    Raises ValueError or cv2.error for what OpenCV refuses, and where it does not use the
    `config.threads` that were set.
    """
    cv2 = load_cv2()
    _use_threads(cv2, config.threads)
    candidate = net.read(cv2, graph, config)
    net.configure(cv2, candidate, config)
    return candidate, _inference(candidate, net.to_blob(images, layout))


def _use_threads(cv2: Any, threads: Optional[int]) -> None:
    """Set the number of threads, None for OpenCV's own choice; ValueError if it takes another."""
    if threads is None:
        return
    # Before anything runs: threads that are left over from more would still spin a while.
    cv2.setNumThreads(threads)
    used = cv2.getNumThreads()
    if used != threads:
        raise ValueError(f"asked for {threads} threads but OpenCV says it uses {used}")


def _inference(candidate: Any, blob: Array) -> Infer:
    def infer() -> Array:
        candidate.setInput(blob)
        return np.asarray(candidate.forward())

    return infer


def time_in_child(
    request: TimingRequest,
    subject: str,
    timeout: float = 600,
    interpreter: Interpreter = HERE,
) -> Timing:
    """Return what a process of its own measured on `interpreter`.

    subject: what a message calls it, such as "mobilenet on OpenCV 4.12.0". Raises
    ConformanceError with what the process said when it fails or takes over `timeout` seconds.
    """
    module, arguments = "conformance.opencv.timing", [json.dumps(asdict(request))]
    failure = f"can't time {subject}"
    variables = request.config.environment
    return timing_of(ask_module(module, arguments, timeout, failure, interpreter, **variables))


def measure(request: TimingRequest) -> Timing:
    """Time in this process, which has not run a net yet; see load_inference for what it raises."""
    cv2 = load_cv2()
    config = net.settled(cv2, request.config)
    images = repeated(np.load(request.inputs, allow_pickle=False), request.batch)
    blob = net.to_blob(images, request.layout)
    _use_threads(cv2, config.threads)
    threads = cv2.getNumThreads()
    # Asked by net.configure, once a process, for 60 MiB that are none of the model's.
    available_targets(cv2)
    reset_peak()
    before, code = peak_mib(), file_pages_mib()
    candidate, load_ms = clocked(lambda: net.read(cv2, Path(request.graph), config))
    net.configure(cv2, candidate, config)
    infer = _inference(candidate, blob)
    answer, first_ms = clocked(infer)
    runs = {threads: _inferences(request, infer, candidate)}
    peak, code = peak_mib(), file_pages_mib() - code
    for further in request.further_threads:
        _use_threads(cv2, further)
        runs[further] = _inferences(request, infer, candidate)
    _check_sound(request, answer, blob, net.to_blob(images, request.layout))
    warm = [Warm(n, times, _layers(candidate, found)) for n, (times, found) in runs.items()]
    return Timing(
        version=cv2.__version__,
        engine=config.engine,
        threads=threads,
        load_ms=load_ms,
        first_ms=first_ms,
        memory_mib=None if before is None or peak is None else peak - before - code,
        peak_mib=peak,
        warm=warm,
        types=_types(candidate, config.engine, list(warm[0].layers)),
    )


def _check_sound(request: TimingRequest, answer: Array, blob: Array, given: Array) -> None:
    """Raise ValueError for an answer that is none, whose time says nothing, or a changed input."""
    if request.values is not None and answer.size != request.values * request.batch:
        raise ValueError(
            f"its answer has the shape {list(answer.shape)}, and {request.values} values an image "
            f"were expected"
        )
    if not np.isfinite(answer).all():
        raise ValueError("its answer has NaN or infinity in it")
    if not np.array_equal(blob, given):
        raise ValueError("it changed the array that it was given as input")


def _inferences(
    request: TimingRequest, infer: Infer, candidate: Any
) -> tuple[list[float], list[Array]]:
    """Return the ms of each inference after one that warms up and, if asked for, of its layers."""
    times: list[float] = []
    profiles: list[Array] = []
    infer()
    end = time.perf_counter() + request.seconds
    while len(times) < request.least or (time.perf_counter() < end and len(times) < request.most):
        times.append(clocked(infer)[1])
        if request.layers:
            # After a forward only: before it 4.5.1 aborts.
            profiles.append(_profile(candidate))
    return times, profiles


def _profile(candidate: Any) -> Array:
    """Return the ms of each layer in the last forward, in the order of getLayerNames."""
    _, ticks = candidate.getPerfProfile()
    seconds = np.asarray(ticks, dtype=float).ravel() / load_cv2().getTickFrequency()
    return np.asarray(seconds * 1000)


def _layers(candidate: Any, profiles: Sequence[Array]) -> dict[str, float]:
    """Return {layer: median ms}; a layer that was fused into another one took no time."""
    if not profiles:
        return {}
    names = [str(name) for name in candidate.getLayerNames()]
    medians = np.median(profiles, axis=0)
    if len(names) != len(medians):
        raise ValueError(
            f"OpenCV gives {len(medians)} layer times for {len(names)} layers, so that nobody can "
            f"tell whose they are: leave --layers out"
        )
    return dict(zip(names, map(float, medians)))


def _types(candidate: Any, engine: str, names: Sequence[str]) -> dict[str, str]:
    # The new engine of 5.0.0 finds its layers by name, and gives each the number 0.
    find = candidate.getLayerId if engine == "classic" else str
    return {name: str(candidate.getLayer(find(name)).type) for name in names}


def main(request: str) -> dict[str, Any]:
    """Return the Timing of a request in JSON; ConformanceError for whatever OpenCV refuses."""
    asked = json.loads(request)
    asked["config"] = RunConfig(**asked["config"])
    try:
        return asdict(measure(TimingRequest(**asked)))
    except Exception as error:  # whatever the binding raises is the answer
        raise ConformanceError(net.explain(error)[0]) from error


if __name__ == "__main__":
    answer_once(lambda: main(sys.argv[1]))
