"""How long one inference takes, in OpenCV and in TensorFlow: an array in, an array out.

Of OpenCV also what it costs to get there (results/quantities.py), in processes of its own. Nothing
is judged: pytest-benchmark records the times. Run only when asked for: this file named,
``-m inference_time`` or ``--benchmark-only``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Optional

import pytest

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.opencv.timing import Timing, TimingRequest, load_inference, time_in_child
from conformance.pack.conversion import file_for
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.pack.request import producer_versions
from conformance.plugin.cases import known_failure
from conformance.plugin.hooks import failing, marked
from conformance.plugin.options import session_of
from conformance.processes.inference import Infer, repeated, warm_up
from conformance.processes.machine import cpu_name
from conformance.results.quantities import ONCE
from conformance.session import Session

pytestmark = pytest.mark.inference_time

# What a process may use over its threads' time: clocks and the scheduler are not exact. Threads
# that wait for more work spin a few ms, which short runs can't tell from work.
BUSY_MARGIN = 1.15
BUSY_SECONDS = 0.5
# What a process does once is told by the median of several.
PROCESSES = 3


@dataclass(frozen=True)
class Row:
    """One way to run a model. variant: for OpenCV, with its number of threads."""

    framework: str
    threads: int
    batch: int
    variant: Optional[RunConfig] = None

    def name(self, alone: bool) -> str:
        """Return what the test is called; `alone`: there is no other engine to tell it from."""
        if self.variant is None:
            return self.framework
        engine = "" if alone else self.variant.place
        return "-".join(filter(None, (self.framework, engine, self.variant.switches)))


@dataclass(frozen=True)
class Inference:
    """A model ready to run."""

    infer: Infer  # runs the batch once
    peak_mib: Optional[float]  # of a process that does that
    costs: Mapping[str, float] = field(default_factory=dict)  # of such a process, see _costs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the test over the models, and over OpenCV's engines and TensorFlow's two ways."""
    session = session_of(metafunc.config)
    batch = metafunc.config.getoption("--batch")
    threads = session.choices.threads or session.capability["threads"]
    # Of the importers only the first: they differ in the layers that they make, not in speed.
    judged = session.variants()
    usual = (v for v in judged if v.importer == judged[0].importer)
    variants = [replace(v, threads=threads, layers=False) for v in usual]
    alone = len({variant.place for variant in variants}) == 1
    if len({tuple(variant.environment.items()) for variant in variants}) > 1:
        raise pytest.UsageError(
            "inference times are of one CPU level, as cv2 is loaded once: give --cpu-disable once"
        )
    rows = [Row("opencv", threads, batch, variant) for variant in variants]
    rows += [Row(name, threads, batch) for name in ("tensorflow", "tensorflow-eager")]
    models = marked(session, session.models)
    metafunc.parametrize("pack", models, indirect=True, scope="session")
    metafunc.parametrize("row", rows, ids=[row.name(alone) for row in rows])


@pytest.fixture
def inference(pack: Pack, row: Row, conformance_session: Session) -> Inference:
    """The model in OpenCV or TensorFlow, after a child process has shown that it runs."""
    with failing("nothing to time: "):
        if row.variant is not None:
            return _opencv(pack, row, row.variant, conformance_session)
        return _tensorflow(pack, row, conformance_session)


def _opencv(pack: Pack, row: Row, variant: RunConfig, session: Session) -> Inference:
    if pack.manifest.importer in FORMATS:
        variant = replace(variant, importer=pack.manifest.importer)
    session.check_conversion(pack, variant.importer)
    failure = session.run(pack, variant).failure_before("batch" if row.batch > 1 else "forward")
    if failure is not None:
        known = known_failure(session, pack.model, variant, "time", "test_inference_time")
        if known is not None:
            pytest.skip(f"known failure: {known.reason}")
        raise ConformanceError(str(failure))
    # The run above did more than such inferences, so that its peak memory is none of theirs.
    inputs = str(pack.path / "inputs.npy")
    file = file_for(pack.path, variant.importer)
    request = TimingRequest(str(file), inputs, variant, row.batch, seconds=0)
    request = replace(request, layout=pack.manifest.input_layout, values=pack.values)
    subject, timeout = f"{pack.model} in OpenCV", session.choices.candidate_timeout
    alone = [time_in_child(request, subject, timeout) for _ in range(PROCESSES)]
    images = repeated(pack.load("inputs"), row.batch)
    os.environ.update(variant.environment)  # which OpenCV reads when it is loaded
    _, infer = load_inference(file, images, variant, request.layout)
    return Inference(infer, alone[0].peak_mib, _costs(alone, row.threads))


def _costs(alone: Sequence[Timing], threads: int) -> dict[str, float]:
    """Return {Quantity.key: median over processes}; warm inferences are for the test to time."""
    costs = {}
    for quantity in ONCE:
        found = (quantity.measure(timing, threads) for timing in alone)
        told = [value for value in found if value is not None]
        if told:
            costs[quantity.key] = median(told)
    return costs


def _tensorflow(pack: Pack, row: Row, session: Session) -> Inference:
    if pack.manifest.importer in FORMATS:
        pytest.skip(f"{pack.model}: there is no TensorFlow graph of it")
    if producer_versions(session.choices.keras) is None:
        pytest.skip("TensorFlow is not installed: only OpenCV is timed")
    from conformance.reference import timing  # TensorFlow is what is timed

    eager = row.framework == "tensorflow-eager"
    own = session.choices.own.get(pack.model)
    if eager and own is not None and not str(own.path).endswith((".keras", ".h5", ".hdf5")):
        pytest.skip(f"{pack.model}: there is no Keras model to call")
    weights = session.choices.weights if own is None else str(own.path)
    request = timing.Request(str(pack.path), weights, eager, row.threads, row.batch)
    peak = timing.peak_in_child(request, session.choices.candidate_timeout)
    return Inference(timing.load_inference(request), peak)


def test_inference_time(
    benchmark: Any,
    inference: Inference,
    pack: Pack,
    row: Row,
    conformance_session: Session,
    request: pytest.FixtureRequest,
) -> None:
    """A warm inference is timed, on no more threads than asked for; it answers each image."""
    info = {
        "model": pack.model,
        "framework": row.framework,
        "opencv": conformance_session.capability["version"],
        "tensorflow": (producer_versions(conformance_session.choices.keras) or {}).get(
            "tensorflow"
        ),
        "engine": row.variant.place if row.variant else None,
        "threads": row.threads,
        "cpu": cpu_name(),
        "batch": row.batch,
        "pack": pack.manifest.digest(),
        "peak_mib": inference.peak_mib,
        **inference.costs,
    }
    # Not by record_property, which warns of each test where JUnit XML is asked for.
    shown = ("model", "framework", "opencv", "tensorflow", "engine")
    request.node.user_properties += [(name, info[name]) for name in shown if info[name] is not None]
    benchmark.group = pack.model
    benchmark.extra_info.update(info)
    assert len(warm_up(inference.infer)) == row.batch
    begin, cpu = time.perf_counter(), time.process_time()
    benchmark(inference.infer)
    seconds = time.perf_counter() - begin
    busy = too_busy(seconds, time.process_time() - cpu, row.threads)
    if busy:
        pytest.fail(busy, pytrace=False)


def too_busy(seconds: float, cpu_seconds: float, threads: int) -> str:
    """Return what to say where more than `threads` threads were at work, else nothing."""
    busy = cpu_seconds / seconds
    if seconds < BUSY_SECONDS or busy <= threads * BUSY_MARGIN:
        return ""
    return f"{busy:.2f} threads at work, not {threads}"
