"""The pytest side of the results store: a file for each importer, engine and CPU level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Optional

import pytest

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.pack.store import locate_pack
from conformance.results.cases import writing
from conformance.results.lines import Line, Writer
from conformance.session import Session

from .cases import model_of_test
from .generated_runs import Generated
from .header import results_header
from .table import worst_outcome


class Recorder:
    """Writes what the reports say as it comes; registered as a plugin where --results is given.

    Under pytest-xdist only the controller has one.
    """

    def __init__(self, folder: Path, session: Session, generated: Optional[Generated]) -> None:
        self._folder = folder
        self._session = session
        self._generated = generated
        self._stack = ExitStack()
        self._writers: dict[RunConfig, Writer] = {}
        self._outcomes: dict[str, list[Any]] = {}
        self._missing: set[str] = set()  # models whose packs other processes may be building yet
        self._small = False  # whether those may be building generated ones, too
        self._waiting: list[tuple[Mapping[str, Any], list[Line]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a line when a case's last phase is over."""
        findings: dict[str, Any] = getattr(report, "findings", {})
        if "case" not in findings:
            return  # a test that judges nothing leaves the files as they are
        phases = self._outcomes.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when != "teardown":
            return
        properties: dict[str, Any] = dict(report.user_properties)
        lines = [_case_line(findings, properties["command"], phases)]
        lines += [findings[kind] for kind in ("run", "layers", "generated") if kind in findings]
        del self._outcomes[report.nodeid]
        self._waiting.append((properties, lines))
        with self._or_end():
            if self._writers or self._can_open():
                self._write()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Note which packs the workers build where they are missing."""
        models = self._session.models
        self._missing = {model_of_test(models, test) for test in ids}.intersection(models)
        self._small = any("test_generated.py::" in test for test in ids)

    @contextmanager
    def _or_end(self) -> Iterator[None]:
        """End the run by one message where the results can't be written."""
        try:
            yield
        except ConformanceError as error:
            message = str(error)
        except OSError as error:
            message = f"--results {self._folder}: can't be written ({error.strerror or error})"
        else:
            return
        self._waiting.clear()
        pytest.exit(message, pytest.ExitCode.USAGE_ERROR)

    def _can_open(self) -> bool:
        """Whether all packs are there: the header says which they are, and some are built yet."""
        building, packs = self._session.building, self._session.choices.packs
        if building is not None:
            return building.is_over
        # Those that were found once are not sought again.
        self._missing = {
            name for name in self._missing if not locate_pack(packs, self._session.request(name))
        }
        needed = self._generated if self._small else None
        return not self._missing and (needed is None or needed.is_there)

    def _write(self) -> None:
        """Write what was kept back until now."""
        if not self._writers:
            self._open()
        for properties, lines in self._waiting:
            for config, writer in self._writers.items():
                if belongs(properties, config):
                    for line in lines:
                        writer.write(line)
        self._waiting.clear()

    def _open(self) -> None:
        for config in self._session.variants():
            if config.variant not in {given.variant for given in self._writers}:
                header = results_header(self._session, config)
                if self._generated is not None:
                    header["generated"] = self._generated.header()
                name = f"{header['opencv']['version']}-{config.variant}.jsonl"
                manager = writing(self._folder / name, header)
                self._writers[config] = self._stack.enter_context(manager)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the files; a run that was interrupted gets no footer."""
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        error = None if ended else RuntimeError("interrupted")
        with self._or_end():
            if self._waiting:
                self._write()
            self._stack.__exit__(type(error) if error else None, error, None)


def belongs(properties: Mapping[str, Any], config: RunConfig) -> bool:
    """Return whether a case is one of the engine, importer and CPU level of `config`.

    One without an engine is of all (is the frozen graph right?), and one without an importer
    is of the usual one, or of all where it has no engine either.
    """
    engine, importer = properties.get("engine"), properties.get("importer")
    if importer is None and engine is not None:
        importer = RunConfig().importer
    level = properties.get("cpu", "" if engine else None)
    return (
        engine in (None, config.engine)
        and importer in (None, config.importer)
        and level in (None, config.cpu)
    )


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
