"""What a run builds and where it is: said from its start, a line a step off a terminal."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Optional

import pytest

from conformance.generated.outcomes import MODEL
from conformance.models import model_order
from conformance.pack.building import seconds_of
from conformance.pack.costs import building_seconds
from conformance.pack.pool import Job
from conformance.processes.progress import about, reporter

from .cases import model_of, model_of_test
from .generated_runs import generated_of
from .options import session_of
from .table import worst_outcome

# Judging a model takes about so much of what building its pack does, for each importer and engine.
_JUDGING = 0.25
# OpenCV, as it judges, leaves a quarter of the cores to what is built meanwhile.
_SHARED = 0.75


class Progress:
    """Builds what is missing while what is there is judged, and tells of both."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._expected: Counter[str] = Counter()  # tests of each model
        self._to_come: list[pytest.Item] = []
        self._phases: dict[str, list[pytest.TestReport]] = {}
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Optional[Any]:
        """Keep each model on one worker of pytest-xdist, so that no candidate runs twice."""
        if config.getoption("dist") != "load":
            return None
        from xdist.scheduler import LoadScopeScheduling

        # Not xdist_group: workers heed it only with --dist loadgroup, and not with every pytest.
        scheduling = LoadScopeScheduling(config, log)
        scheduling._split_scope = partial(model_of_test, session_of(config).models)
        return scheduling

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let workers of pytest-xdist begin with the longest: the last ones should end together."""
        if hasattr(self._config, "workerinput"):
            items.sort(key=lambda item: -building_seconds(model_of(item) or ""))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Begin to build the missing packs; tests that need none come first."""
        models = sorted({m for m in map(model_of, session.items) if m}, key=model_order)
        small = any(item.get_closest_marker(MODEL) for item in session.items)
        if self._config.option.collectonly or not (models or small):
            return
        self._expected = Counter(filter(None, map(model_of, session.items)))
        asked = session_of(self._config)
        jobs = asked.missing_jobs(models)
        jobs += generated_of(self._config).missing_jobs() if small else []
        if not hasattr(self._config, "workerinput"):  # those of pytest-xdist agree on an order
            seconds = {job.name: job.seconds for job in jobs}
            session.items.sort(key=lambda item: seconds.get(_job_of(item), 0.0))
            self._to_come = session.items
        asked.start_building(jobs, self._shown)
        self._say_plan(len(session.items), models, jobs)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: Optional[pytest.Item]) -> None:
        """Put the tests after the next in the order in which their packs will be there."""
        building, items = session_of(self._config).building, self._to_come
        if building is None or nextitem is None or not items:
            return
        place = items.index(nextitem) + 1
        rest = items[place:]
        if not rest or building.is_done(_job_of(rest[0])) or _job_of(nextitem) == _job_of(rest[0]):
            return
        # pytest looks at its list anew before each test; the next one is settled.
        wait = {name: building.seconds_until(name) for name in map(_job_of, rest)}
        items[place:] = sorted(rest, key=lambda other: wait[_job_of(other)])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Count the tests of each model, in the process that hands them out."""
        models = session_of(self._config).models
        self._expected = Counter(model_of_test(models, test) for test in ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Off a terminal, tell what came of a model as soon as its last test is over."""
        phases = self._phases.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when != "teardown":
            return
        del self._phases[report.nodeid]
        model = getattr(report, "findings", {}).get("case", {}).get("model")
        if model not in self._expected or hasattr(self._config, "workerinput"):
            return
        outcomes = self._outcomes[model]
        outcomes[worst_outcome(phases)] += 1
        if sum(outcomes.values()) == self._expected[model] and not sys.stdout.isatty():
            told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
            self._say(f"{model}: judged, {told}")

    def pytest_runtest_logfinish(self) -> None:
        """Tell what was built meanwhile."""
        building = session_of(self._config).building
        if building is not None:
            building.tell()

    def pytest_sessionfinish(self) -> None:
        """Stop what is still being built, where the run was stopped."""
        session_of(self._config).stop_building()

    def _say_plan(self, tests: int, models: Sequence[str], jobs: Sequence[Job]) -> None:
        if hasattr(self._config, "workerinput"):
            return
        asked = session_of(self._config)
        seconds = _JUDGING * len(asked.variants()) * sum(map(building_seconds, models))
        if asked.building is not None:
            at_once = asked.building.pool.at_once
            building = seconds_of(jobs, at_once)
            self._say(
                f"{_many(len(jobs), 'pack')} to build, {at_once} at a time, about "
                f"{about(building)}; each model is judged once its pack is there"
            )
            seconds = building + _SHARED * seconds
        what = f"{_many(tests, 'test')} of {_many(len(models), 'model')}"
        self._say(f"{what}, about {about(seconds)} on a machine like the one in docs/cost.md")

    def _say(self, text: str) -> None:
        with self._shown(0, 0) as report:
            report(text)

    @contextmanager
    def _shown(self, done: int, total: int) -> Iterator[Any]:
        """Give what shows a line or an event: as a bar beneath them where this is a terminal."""
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is None or hasattr(self._config, "workerinput"):
            # A worker of pytest-xdist has no terminal of its own, but shares standard error.
            yield lambda told: print(f"conformance: {told}", file=sys.stderr, flush=True)
            return

        def write(told: object) -> None:
            terminal.ensure_newline()
            terminal.write_line(f"conformance: {told}")
            terminal.flush()

        with self._config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            if total and sys.stderr.isatty():
                terminal.ensure_newline()
                with reporter("auto", total, done) as report:
                    yield report
            else:
                yield write


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _job_of(item: pytest.Item) -> str:
    """Return the name of the job that builds what a test needs, "" where it needs nothing."""
    return MODEL if item.get_closest_marker(MODEL) else model_of(item) or ""
