"""The pytest side of the results store: one file for each importer and engine of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.candidate import CandidateRun, RunConfig
from conformance.pack.format import Pack
from conformance.pack.sampling import SAMPLED
from conformance.session import Session
from conformance.verdict.metrics import METRICS

from .results import Line, ResultsWriter, json_number, writing
from .terminal import worst_outcome


class Recorder:
    """Writes what the reports say as it comes; registered as a plugin where --results is given.

    Under pytest-xdist only the controller has one.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        self._folder = folder
        self._session = session
        self._stack = ExitStack()
        self._writers: dict[RunConfig, ResultsWriter] = {}
        self._outcomes: dict[str, list[Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a line when a case's last phase is over."""
        findings: dict[str, Any] = getattr(report, "findings", {})
        if "case" not in findings:
            return  # a test that judges nothing leaves the files as they are
        if not self._writers:
            self._open()
        phases = self._outcomes.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when != "teardown":
            return
        properties: dict[str, Any] = dict(report.user_properties)
        lines = [_case_line(findings, properties["command"], phases)]
        lines += [findings[kind] for kind in ("run", "layers") if kind in findings]
        del self._outcomes[report.nodeid]
        for config, writer in self._writers.items():
            if belongs(properties, config):
                for line in lines:
                    writer.write(line)

    def _open(self) -> None:
        for config in self._session.variants():
            if config.variant not in {given.variant for given in self._writers}:
                header = self._session.results_header(config)
                name = f"{header['opencv']['version']}-{config.variant}.jsonl"
                manager = writing(self._folder / name, header)
                self._writers[config] = self._stack.enter_context(manager)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the files; a run that was interrupted gets no footer."""
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        error = None if ended else RuntimeError("interrupted")
        self._stack.__exit__(type(error) if error else None, error, None)


def belongs(properties: Mapping[str, Any], config: RunConfig) -> bool:
    """Return whether a case is one of the engine and importer of `config`.

    One without an engine is of all (is the frozen graph right?), and one without an importer
    is of the usual one, or of all where it has no engine either.
    """
    engine, importer = properties.get("engine"), properties.get("importer")
    if importer is None and engine is not None:
        importer = RunConfig().importer
    return engine in (None, config.engine) and importer in (None, config.importer)


def run_line(pack: Pack, run: CandidateRun, variant: str = "") -> Line:
    """Return the line of a run that answered: bits, greatest and median deviation, cost.

    deviation: OpenCV from float64; noise: TensorFlow's float32 from float64; both by metric.
    """
    assert run.outputs is not None
    assert run.times_ms is not None
    candidates = {"outputs": (run.outputs, slice(None)), "logits": (run.logits, SAMPLED)}
    deviation, noise = {}, {}
    for name in ("softmax_l1_sum", "softmax_linf", "logits_linf"):
        metric = METRICS[name]
        candidate, part = candidates[metric.arrays]
        truth = pack.load(f"{metric.arrays}_f64")[part]
        if candidate is None or candidate.shape != truth.shape:
            continue
        reference = pack.load(f"{metric.arrays}_f32")[part]
        for suffix, over_inputs in (("", np.max), ("_median", np.median)):
            strayed = over_inputs(metric.measure(candidate, truth))
            deviation[name + suffix] = json_number(float(strayed))
            noise[name + suffix] = float(over_inputs(metric.measure(reference, truth)))
    return {
        "kind": "run",
        "model": pack.model,
        "variant": variant,
        "outputs_sha256": hashlib.sha256(run.outputs.tobytes()).hexdigest(),
        "deviation": deviation,
        "noise": noise,
        "median_ms": float(np.median(run.times_ms)),
        "peak_mib": run.peak_mib,
    }


def _case_line(findings: dict[str, Any], command: str, phases: list[Any]) -> Line:
    outcome = worst_outcome(phases)
    line: Line = {"kind": "case", **findings["case"], "outcome": outcome}
    judgement = findings.get("judgement")
    if judgement:
        line |= {key: judgement[key] for key in ("metric", "observed", "allowed")}
    if outcome != "passed":
        line["reason"] = _reason(phases)
        line["command"] = command
    elif judgement and judgement["notes"]:
        line["reason"] = judgement["notes"]
    return line


def _reason(phases: list[Any]) -> str:
    for report in phases:
        if hasattr(report, "wasxfail"):
            return f"known failure: {report.wasxfail}"
        if report.outcome == "skipped":
            return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "skipped"
        if report.outcome == "failed":
            return str(report.longreprtext)[-4000:]
    return ""
