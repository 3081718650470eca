"""Inference times of OpenCV, in this process (for pytest-benchmark) or in one of its own.

An inference is what a user waits for: an array in (setInput), an array out (forward).
``python -m conformance.opencv.timing REQUEST`` is the child's side of `time_in_child`; it needs cv2
and NumPy only, so that it runs beside any OpenCV wheel.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import Array, RunConfig
from conformance.errors import ConformanceError
from conformance.processes.child import HERE, Interpreter, ask_module
from conformance.processes.inference import Infer, repeated, warm_up
from conformance.processes.machine import peak_mib
from conformance.processes.serve import answer_once

from . import net
from .capability import engines, load_cv2


@dataclass(frozen=True)
class TimingRequest:
    """What one process is to time.

    config: engine "default" means the one this OpenCV takes by itself; threads None its own
    choice. batch: images an inference. layers: time each layer too. seconds: how long to go on,
    within least and most inferences.
    """

    graph: str
    inputs: str
    config: RunConfig = field(default_factory=RunConfig)
    batch: int = 1
    layers: bool = False
    seconds: float = 1.0
    least: int = 5
    most: int = 200
    layout: str = "NCHW"  # of the blob that the file takes


@dataclass(frozen=True)
class Timing:
    """What one process measured.

    times_ms: of each inference after warming up, in order. threads: OpenCV's. layers: {layer:
    median ms}, types: {layer: OpenCV's type of it}; both empty where layers were not asked for.
    """

    version: str
    engine: str
    threads: int
    times_ms: list[float]
    layers: dict[str, float]
    types: dict[str, str]
    peak_mib: Optional[float]

    @property
    def median_ms(self) -> float:
        """The median of the inferences."""
        return float(np.median(self.times_ms))


def load_inference(
    graph: Path, images: Array, config: RunConfig, layout: str = "NCHW"
) -> tuple[Any, Infer]:
    """Return the net and a function that runs float32 NHWC `images` through it, once a call.

    layout: of the blob that it takes.

    Raises ValueError or cv2.error for what OpenCV refuses, and where it does not use the
    `config.threads` that were set.
    """
    cv2 = load_cv2()
    if config.threads is not None:
        # Before anything runs: threads that are left over from more would still spin a while.
        cv2.setNumThreads(config.threads)
    candidate = net.read(cv2, graph, config)
    net.configure(cv2, candidate, config)
    used = cv2.getNumThreads()
    if config.threads is not None and used != config.threads:
        raise ValueError(f"asked for {config.threads} threads but OpenCV says it uses {used}")
    blob = net.to_blob(images, layout)

    def infer() -> Array:
        candidate.setInput(blob)
        return np.asarray(candidate.forward())

    return candidate, infer


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
    return Timing(**ask_module(module, arguments, timeout, f"can't time {subject}", interpreter))


def measure(request: TimingRequest) -> Timing:
    """Time in this process; see load_inference for what it raises."""
    cv2 = load_cv2()
    config = request.config
    if config.engine == "default":
        # OpenCV 5 takes its new engine by itself; 4.x has the classic one only.
        config = RunConfig(**{**asdict(config), "engine": engines(cv2)[-1]})
    images = repeated(np.load(request.inputs, allow_pickle=False), request.batch)
    candidate, infer = load_inference(Path(request.graph), images, config, request.layout)
    warm_up(infer)
    times, profiles = _inferences(request, infer, candidate)
    layers = _layers(candidate, profiles)
    return Timing(
        version=cv2.__version__,
        engine=config.engine,
        threads=cv2.getNumThreads(),
        times_ms=times,
        layers=layers,
        types=_types(candidate, config.engine, list(layers)),
        peak_mib=peak_mib(),
    )


def _inferences(
    request: TimingRequest, infer: Infer, candidate: Any
) -> tuple[list[float], list[Array]]:
    """Return the ms of each inference and, if asked for, the ms of the layers in it."""
    times: list[float] = []
    profiles: list[Array] = []
    end = time.perf_counter() + request.seconds
    while len(times) < request.least or (time.perf_counter() < end and len(times) < request.most):
        begin = time.perf_counter()
        infer()
        times.append((time.perf_counter() - begin) * 1000)
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
