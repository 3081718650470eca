"""The pytest plugin awake: options, axes, fixtures, known failures, the verdict table."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.generated.outcomes import MODEL
from conformance.localize.diagnosis import diagnose
from conformance.models import EXTENDED
from conformance.opencv.levels import AS_IT_IS, Level
from conformance.pack.conversion import Conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.session import Session
from conformance.verdict.expectations import NO_MODEL
from conformance.verdict.judgement import Judgement
from conformance.verdict.message import Context, failure_message
from conformance.verdict.tolerance import Allowance, Tolerances

from . import INI, SELFTEST, SUITE, asks_for_suite, generated_runs
from . import imagenet_runs as selecting
from . import timing_runs as recording
from .cases import (
    findings,
    is_batch_of_one,
    is_of_no_file,
    mark_known_failure,
    model_of,
    name_case,
    parameters_of,
)
from .generated_runs import expected_of_any, explanations, generated_of
from .header import header
from .options import (
    add_options,
    asked_models,
    check_evaluated,
    check_left_out,
    count_generated,
    rerun_command,
    session_of,
)
from .progress import Progress
from .table import verdict_table

# Tests of models of the user's only.
OWN = "own"
_EXTENDED = "models of the extended registry; run only when asked for"
# Files of the suite that import much, and say themselves whether a run is about them.
_OPTIONAL = {"test_imagenet.py": selecting.is_asked, "test_inference_time.py": recording.is_asked}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Optional[int]:
    """Run pytest anew with the checkout's pytest.ini where it took another folder for its root.

    It does where the path after an option, such as --model, lies elsewhere: pytest seeks its
    settings before plugins can add options, and takes that path for a test's.
    """
    here, root = config.invocation_params.dir, INI.parent
    given = config.getoption("inifilename") or config.getoption("rootdir")
    if given or config.rootpath == root or root not in (here, *here.parents) or not INI.exists():
        return None
    return pytest.main([f"--config-file={INI}", *config.invocation_params.args])


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and check what is asked for before anything is collected."""
    config.addinivalue_line("markers", "stage(name): the stage that a test of the suite judges")
    config.addinivalue_line("markers", f"{OWN}: judges models of your own only")
    # Not in pytest.ini, which pytest misses from elsewhere and with a path among the options.
    config.addinivalue_line("markers", f"extended: {_EXTENDED}")
    for optional in (recording, selecting):
        config.addinivalue_line("markers", f"{optional.MARK}: {optional.WHAT}")
    config.addinivalue_line("markers", f"{MODEL}: {generated_runs.WHAT}")
    config.pluginmanager.register(generated_runs, "conformance generated models")
    if _is_suite_run(config):
        config.pluginmanager.register(Progress(config), "conformance progress")
        check_left_out(config)
        if config.getoption("--known-defects"):
            generated_of(config)  # a bad file ends the run here, not its collection
    _check_models(config)
    results = config.getoption("--results")
    if results and not hasattr(config, "workerinput"):
        from .recorder import Recorder  # here: it imports what locks files, which most runs do not

        drawn = generated_of(config) if count_generated(config) else None
        config.pluginmanager.register(Recorder(Path(results), session_of(config), drawn))
    if selecting.is_asked(config):
        selecting.check(config)
        check_evaluated(config)
    if recording.is_asked(config):
        recording.check(config)
        if results:
            version = session_of(config).capability["version"]
            recording.write_to(config, Path(results), version)


def pytest_unconfigure() -> None:
    """Let the process end at once: pytest and Python would search all objects for garbage."""
    gc.freeze()


def _check_models(config: pytest.Config) -> None:
    """Raise pytest.UsageError for models that can't be, before anything is collected."""
    if _is_suite_run(config) or config.getoption("--model") or config.getoption("--models-file"):
        try:
            asked_models(config)
        except ConformanceError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Optional[bool]:
    """Leave out the suite's own tests, and its optional ones, unless they are asked for."""
    if collection_path == SELFTEST:
        asked = any("selftest" in arg for arg in config.invocation_params.args)
        return None if asked else True
    is_asked = _OPTIONAL.get(collection_path.name) if collection_path.parent == SUITE else None
    return True if is_asked and not is_asked(config) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the tests that judge a stage over the models and, where they run it, over engines.

    Other tests may have fixtures of the same names that are none of this plugin's business.
    """
    if metafunc.definition.get_closest_marker("stage") is None:
        return
    if "pack" in metafunc.fixturenames:
        session = session_of(metafunc.config)
        own = metafunc.definition.get_closest_marker(OWN)
        models = [m for m in session.models if m in session.choices.own] if own else session.models
        metafunc.parametrize("pack", marked(session, models), indirect=True, scope="session")
    if "conversion" in metafunc.fixturenames:
        formats = _formats(metafunc.config)
        metafunc.parametrize("conversion", formats, indirect=True, scope="session")
    if "generated_key" in metafunc.fixturenames:
        asked = count_generated(metafunc.config)
        keys = list(generated_of(metafunc.config).recipes) if asked else []
        metafunc.parametrize("generated_key", keys, scope="session")
    if "level" in metafunc.fixturenames and session_of(metafunc.config).choices.cpu_disable:
        levels = list(session_of(metafunc.config).levels)
        ids = [level.name for level in levels]
        metafunc.parametrize("level", levels, ids=ids, scope="session")
    if "variant" in metafunc.fixturenames:
        variants = session_of(metafunc.config).variants()
        if count_generated(metafunc.config) and metafunc.definition.get_closest_marker(MODEL):
            variants = [one for one in variants if not one.switches]
        ids = ["-".join(filter(None, (v.variant, v.switches))) for v in variants]
        metafunc.parametrize("variant", variants, ids=ids, scope="session")


def _formats(config: pytest.Config) -> list[str]:
    return [name for name in session_of(config).importers if name in FORMATS]


def marked(session: Session, models: Iterable[str]) -> list[Any]:
    """Return the models as parameters, those of the extended registry with their marker."""
    mark = () if session.choices.chosen else pytest.mark.extended
    return [pytest.param(m, marks=mark if m in EXTENDED else ()) for m in models]


def _deselect(config: pytest.Config, items: list[pytest.Item], mark: str) -> None:
    """Take the tests of a marker out of the run, and tell pytest so."""
    _leave_out(config, items, lambda item: item.get_closest_marker(mark) is not None)


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], which: Callable[[pytest.Item], bool]
) -> None:
    unwanted = [item for item in items if which(item)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if not which(item)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Leave out what is not asked for, then describe what pytest's own options leave."""
    _leave_out_unasked(config, items)
    yield
    _describe(config, items)


def _leave_out_unasked(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Of a checkout that is reached by a link these were collected.
    if not recording.is_asked(config):
        _deselect(config, items, recording.MARK)
    if not selecting.is_asked(config):
        _deselect(config, items, selecting.MARK)
    if not count_generated(config):
        _deselect(config, items, MODEL)
    _leave_out(config, items, lambda item: is_of_no_file(session_of(config), item))
    _leave_out(config, items, lambda item: is_batch_of_one(session_of(config), item))
    if not _formats(config):
        # pytest would keep a test without parameters, and tell that it was skipped.
        _leave_out(config, items, lambda item: "conversion" in getattr(item, "fixturenames", ()))
    own = [item for item in items if item.get_closest_marker(OWN)]
    if own and not any(model_of(item) in session_of(config).choices.own for item in own):
        _deselect(config, items, OWN)  # there is no model of the user's to judge


def _describe(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Name each item's case, and mark the known failures."""
    for item in items:
        if not item.get_closest_marker("stage"):
            continue
        model, variant = parameters_of(item)
        name_case(item, session_of(config), model or NO_MODEL, variant)
        mark_known_failure(session_of(config), item, model or NO_MODEL, variant)
        defect = expected_of_any(item)
        if defect is not None:
            # Not strict: such a defect spares some models.
            item.add_marker(pytest.mark.xfail(reason=str(defect), strict=False))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the findings into the report, for the results file and the table at the end."""
    report = yield
    vars(report)["findings"] = dict(findings(item))
    if report.outcome == "failed":
        known = explanations(item, str(report.longrepr))
        said = [defect for defect in known if defect.says]
        if said and parameters_of(item)[0] in EXTENDED:
            # Of the 15, and of the user's own models, a failure is red whatever it says.
            report.outcome, report.wasxfail = "skipped", str(said[0])
        elif known:
            text = "\n".join(map(str, known))
            report.sections += [("Known defects of OpenCV that it may be", text)]
    return report


@contextmanager
def failing(before: str = "") -> Iterator[None]:
    """Let a ConformanceError be all that a test says; in a fixture it is its error, no failure."""
    try:
        yield
    except ConformanceError as error:
        raise pytest.fail.Exception(f"{before}{error}", pytrace=False) from None


@pytest.fixture(scope="session")
def conformance_session(request: pytest.FixtureRequest) -> Session:
    """What this session knows of OpenCV, packs and runs."""
    return session_of(request.config)


@pytest.fixture(scope="session")
def pack(request: pytest.FixtureRequest, conformance_session: Session) -> Pack:
    """The reference pack of one model (indirect parameter: the model's name)."""
    with failing():
        return conformance_session.pack(request.param)


@pytest.fixture(scope="session")
def conversion(
    request: pytest.FixtureRequest, pack: Pack, conformance_session: Session
) -> Conversion:
    """The pack's file for another importer (indirect parameter: the importer)."""
    with failing():
        return conformance_session.conversion(pack, request.param)


@pytest.fixture(scope="session")
def level() -> Level:
    """The CPU level of a test that judges no network; a parameter where --cpu-disable is given."""
    return AS_IT_IS


@pytest.fixture(scope="session")
def candidate(conformance_session: Session, pack: Pack, variant: RunConfig) -> CandidateRun:
    """What OpenCV answered to the pack's inputs, or how it failed: a test of import judges that."""
    with failing():
        conformance_session.check_conversion(pack, variant.importer)
        return conformance_session.run(pack, variant)


@pytest.fixture
def answered(candidate: CandidateRun) -> CandidateRun:
    """The candidate, provided that it got as far as answering every input."""
    failure = candidate.failure_before("forward")
    if failure is not None:
        pytest.fail(f"no answer to judge: {failure}", pytrace=False)
    return candidate


@pytest.fixture
def verify(
    request: pytest.FixtureRequest, pack: Pack, conformance_session: Session
) -> Callable[[Judgement], None]:
    """Record a judgement with the case, and fail the test with the full message if it is bad."""
    _, variant = parameters_of(request.node)

    def verify(judgement: Judgement) -> None:
        __tracebackhide__ = True
        findings(request.node)["judgement"] = found = judgement.as_dict()
        request.node.user_properties += [
            (name, found[name])
            for name in ("metric", "observed", "allowed")
            if found[name] is not None
        ]
        own = conformance_session.run(pack, variant).notes if variant else []
        findings(request.node)["notes"] = [*pack.manifest.notes, *own]
        if judgement.notes and judgement.passed:
            warnings.warn(f"{pack.model}: {judgement.notes}", ConformanceNote, stacklevel=2)
        if not judgement.passed:
            judged = [head for head in pack.heads() if head.output_name == judgement.output]
            context = _context(request, (judged or [pack])[0], conformance_session, variant)
            wanted = variant if not _is_expected(request) else None
            lines = diagnose(conformance_session, pack, wanted) if wanted else []
            pytest.fail(failure_message(judgement, context, lines), pytrace=False)

    return verify


def _is_expected(request: pytest.FixtureRequest) -> bool:
    """Return whether a case is expected to fail: nobody asks why, which takes further runs."""
    known = request.node.get_closest_marker("xfail") is not None
    return known and not request.config.option.runxfail


@pytest.fixture
def record_line(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], None]:
    """Record a further line of the results file, of the kind "run" or "layers"."""
    return lambda line: findings(request.node).update({line["kind"]: line})


@pytest.fixture(scope="session")
def tolerances(conformance_session: Session) -> Tolerances:
    """The content of the tolerances file."""
    return conformance_session.limits.tolerances


@pytest.fixture
def allowance(
    pack: Pack, variant: RunConfig, conformance_session: Session
) -> Callable[..., Allowance]:
    """What a metric may reach on each of the pack's inputs, in this OpenCV as configured."""

    def allowance(metric: str, output: Optional[Pack] = None) -> Allowance:
        return conformance_session.limits.allow(output or pack, variant, metric)

    return allowance


class ConformanceNote(UserWarning):
    """Something worth knowing that is no failure, such as a swap of classes inside the noise."""


def _context(
    request: pytest.FixtureRequest, pack: Pack, session: Session, variant: Optional[RunConfig]
) -> Context:
    return Context(
        model=pack.model,
        opencv=session.capability["version"],
        engine=variant.title if variant else "",
        command=rerun_command(request.node, request.config, session.choices.own.get(pack.model)),
        labels=pack.labels(),
        shape=pack.output_shape if pack.is_map else None,
    )


def pytest_report_header(config: pytest.Config) -> Optional[list[str]]:
    """Name versions, CPU and packs where the suite is about to run."""
    return list(header(session_of(config))) if _is_suite_run(config) else None


def _is_suite_run(config: pytest.Config) -> bool:
    return asks_for_suite(config.args, config.option.pyargs, config.invocation_params.dir)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the verdict of each model and engine."""
    reports = [
        r for rs in terminalreporter.stats.values() for r in rs if isinstance(r, pytest.TestReport)
    ]
    table = verdict_table(reports, terminalreporter._tw.fullwidth)
    if table:
        terminalreporter.section("conformance")
        terminalreporter.write(table)
