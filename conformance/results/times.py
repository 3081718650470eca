"""Inference times as pytest-benchmark keeps them (``--benchmark-json``), read for the report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from conformance.errors import ConformanceError
from conformance.models import model_order
from conformance.pack.sealed import parse_json
from conformance.processes.machine import on_threads
from conformance.tables import release

from .comparisons import KIND, Compared, read_comparisons
from .costs import Cost
from .lines import number
from .quantities import ONCE, P90, WARM, median_of, p90_of

FRAMEWORKS = {
    "opencv": "OpenCV",
    "tensorflow": "TensorFlow",
    "tensorflow-eager": "TensorFlow, eager Keras call",
}
_NEEDED = ("model", "framework", "opencv", "tensorflow", "threads", "cpu", "batch")


@dataclass(frozen=True)
class Timing:
    """One benchmark: a model on a framework."""

    model: str
    framework: str
    version: str  # of the framework that was timed
    engine: str
    opencv: str  # of the environment, which TensorFlow shared
    machine: str
    batch: int  # images a round
    seconds: tuple[float, ...]  # each round, in order
    peak_mib: Optional[float]
    values: dict[str, Optional[float]]  # by Quantity.key; None for what is not known
    created: str
    file: str

    @property
    def who(self) -> str:
        """The framework with its version and engine, as the charts name it."""
        name = FRAMEWORKS.get(self.framework, self.framework)
        short, _, rest = name.partition(", ")
        words = " ".join(filter(None, (short, self.version, self.engine)))
        return f"{words}, {rest}" if rest else words

    @property
    def median_ms(self) -> float:
        """Milliseconds a round, the median."""
        return median_of(self.seconds) * 1e3

    @property
    def cost(self) -> Cost:
        """What the model costs on that version."""
        line = f"{self.engine} engine"
        return Cost(self.model, self.version, self.engine, self.group, line, self.values)

    @property
    def group(self) -> str:
        """What must be equal for two times to be compared: machine, threads and batch."""
        return f"{self.machine}, batch {self.batch}"


@dataclass(frozen=True)
class Benchmarks:
    """What benchmark files hold."""

    timings: list[Timing]  # the newest of each kind
    comparisons: list[Compared]  # of wheels
    costs: list[Cost]  # of OpenCV, in both
    notes: list[str]  # what was left out


def read_benchmarks(paths: Iterable[Path], strict: bool = False) -> Benchmarks:
    """Return what is in the files, pytest-benchmark's or those of ``bench --json``.

    Raises ConformanceError for a file that is neither and, where `strict`, for files of several
    CPUs, thread counts or batch sizes.
    """
    timings: list[Timing] = []
    comparisons: list[Compared] = []
    costs: list[Cost] = []
    for path in paths:
        document = _read(path)
        if document.get("kind") == KIND:
            for row in read_comparisons(path, document):
                comparisons += row.compared
                costs += row.costs
        else:
            timings += _timings(path, document)
    groups = {timing.group: timing.file for timing in timings}
    groups |= {compared.group: compared.file for compared in comparisons}
    if strict and len(groups) > 1:
        text = "; ".join(f"{file}: {group}" for group, file in groups.items())
        raise ConformanceError(
            f"--strict: the benchmark files can't be compared: {text}; give files of one CPU, "
            f"thread count and batch size"
        )
    newest, notes = _newest(timings)
    return Benchmarks(newest, comparisons, costs + recorded_costs(newest), notes)


def recorded_costs(timings: Iterable[Timing]) -> list[Cost]:
    """Return what OpenCV cost where its inference times were recorded."""
    return [timing.cost for timing in timings if timing.framework == "opencv"]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConformanceError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise ConformanceError(f"{path}: not JSON ({error})") from error
    return document if isinstance(document, dict) else {}


def _timings(path: Path, document: dict[str, Any]) -> list[Timing]:
    if not isinstance(document.get("benchmarks"), list):
        raise ConformanceError(
            f"{path}: no pytest-benchmark file; write one with "
            f"pytest conformance/suite/test_inference_time.py --benchmark-json FILE"
        )
    return [_timing(path, document, entry) for entry in document["benchmarks"]]


def _timing(path: Path, document: dict[str, Any], entry: dict[str, Any]) -> Timing:
    info = entry.get("extra_info", {})
    missing = [name for name in _NEEDED if name not in info]
    seconds = entry.get("stats", {}).get("data")
    if not seconds or not all(0 < second < math.inf for second in seconds):
        missing.append(
            "seconds in stats.data (--benchmark-json and --benchmark-save-data keep them)"
        )
    if missing:
        raise ConformanceError(
            f"{path}: {entry.get('name')}: no {', '.join(missing)}: no benchmark of the suite"
        )
    opencv = info["framework"] == "opencv"
    return Timing(
        model=info["model"],
        framework=info["framework"],
        version=str(info["opencv"] if opencv else info["tensorflow"]),
        engine=str(info.get("engine") or "") if opencv else "",
        opencv=str(info["opencv"]),
        machine=on_threads(info["cpu"], info["threads"]),
        batch=int(info["batch"]),
        seconds=tuple(seconds),
        peak_mib=info.get("peak_mib"),
        values=_values(info, [1e3 * second for second in seconds]),
        created=str(document.get("datetime", "")),
        file=path.name,
    )


def _values(info: dict[str, Any], times_ms: Sequence[float]) -> dict[str, Optional[float]]:
    """Return the costs: of warm inferences from the rounds, of all else what the test added."""
    values = {quantity.key: number(info.get(quantity.key)) for quantity in ONCE}
    return {**values, WARM.key: median_of(times_ms), P90.key: p90_of(times_ms)}


def _newest(found: Sequence[Timing]) -> tuple[list[Timing], list[str]]:
    kept: dict[tuple[str, ...], Timing] = {}
    replaced: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for timing in sorted(found, key=lambda t: t.created):
        key = (timing.group, timing.model, timing.who)
        older = kept.get(key)
        if older is not None and older.file != timing.file:
            replaced[older.file, timing.file][timing.who] = None
        kept[key] = timing
    notes = [
        f"{older}: its times of {' and of '.join(who)} are left out, {newer} is newer"
        for (older, newer), who in replaced.items()
    ]
    return sorted(kept.values(), key=_order), notes


def _order(timing: Timing) -> tuple[Any, ...]:
    frameworks = list(FRAMEWORKS)
    place = frameworks.index(timing.framework) if timing.framework in frameworks else 99
    return timing.group, model_order(timing.model), place, release(timing.version), timing.engine
