"""The pytest plugin: options, axes, fixtures, known failures, the verdict table."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from .errors import ConformanceError
from .models import MODELS
from .opencv.records import CandidateRun, RunConfig
from .pack import Pack, default_packs, keras_flavour
from .progress import Event
from .reporting.recorder import Recorder
from .reporting.terminal import verdict_table
from .session import Session
from .verdict.expectations import load_known_failures, match_known_failure
from .verdict.judge import Context, Judgement, failure_message
from .verdict.tolerance import Allowance, Tolerances

_PACKAGE = Path(__file__).resolve().parent
_SELFTEST = _PACKAGE / "selftest"
_DEFAULTS = {
    "--weights": "synthetic",
    "--graph": "opencv",
    "--importer": "tensorflow",
    "--target": "cpu",
}
_SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("conformance", "conformance of OpenCV DNN with TensorFlow")
    add = group.addoption
    add("--packs", metavar="DIR", help="folder of reference packs (default: the user's cache)")
    add(
        "--weights",
        default=_DEFAULTS["--weights"],
        metavar="WHICH",
        help="synthetic (default), imagenet, or a folder or file of weights",
    )
    add(
        "--graph",
        default=_DEFAULTS["--graph"],
        choices=("opencv", "raw"),
        help="opencv: passes applied (default); raw: the tutorial's recipe, unmodified",
    )
    add(
        "--importer",
        default=_DEFAULTS["--importer"],
        help="OpenCV's importer (default: tensorflow)",
    )
    add("--engine", metavar="LIST", help="engines, comma-separated (default: all this OpenCV has)")
    add("--target", default=_DEFAULTS["--target"], help="OpenCV's target (default: cpu)")
    add("--threads", type=int, metavar="N", help="threads of OpenCV (default: its own choice)")
    add(
        "--candidate-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest time one model may take in OpenCV before it counts as hung (default: 600)",
    )
    add("--results", metavar="DIR", help="write DIR/<opencv version>-<engine>.jsonl")
    add("--known-failures", metavar="FILE", help="TOML file used instead of the suite's own")


def pytest_configure(config: pytest.Config) -> None:
    """Keep each model on one xdist worker, so that no candidate runs twice."""
    config.addinivalue_line("markers", "stage(name): the stage that a test of the suite judges")
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadgroup"
    results = config.getoption("--results")
    if results and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(results), session_of(config)))


def session_of(config: pytest.Config) -> Session:
    """Return the session's state, made on first use; raise pytest.UsageError for bad options."""
    if _SESSION not in config.stash:
        try:
            config.stash[_SESSION] = _new_session(config)
        except ConformanceError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_SESSION]


def _new_session(config: pytest.Config) -> Session:
    option = config.getoption
    packs, engines = option("--packs"), option("--engine")
    known_failures = option("--known-failures")
    session = Session(
        packs_root=Path(packs).expanduser().resolve() if packs else default_packs(),
        weights=option("--weights"),
        graph=option("--graph"),
        keras=keras_flavour(),
        importer=option("--importer"),
        engines=engines.split(",") if engines else None,
        target=option("--target"),
        threads=option("--threads"),
        timeout=option("--candidate-timeout"),
        known_failures=load_known_failures(Path(known_failures) if known_failures else None),
    )
    session.capability  # noqa: B018  # a missing cv2 is reported before anything is collected
    return session


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Optional[bool]:
    """Leave the suite's own tests out unless they are asked for (``--pyargs conformance``)."""
    asked = any("selftest" in arg for arg in config.invocation_params.args)
    return True if collection_path == _SELFTEST and not asked else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the tests that judge a stage over the models and, where they run it, over engines.

    Other tests may have fixtures of the same names that are none of this plugin's business.
    """
    if metafunc.definition.get_closest_marker("stage") is None:
        return
    if "pack" in metafunc.fixturenames:
        metafunc.parametrize("pack", list(MODELS), indirect=True, scope="session")
    if "variant" in metafunc.fixturenames:
        variants = session_of(metafunc.config).variants()
        ids = [variant.engine for variant in variants]
        metafunc.parametrize("variant", variants, ids=ids, scope="session")


def _parameters(item: pytest.Item) -> tuple[Optional[str], Optional[RunConfig]]:
    if item.get_closest_marker("stage") is None:
        return None, None
    params = getattr(getattr(item, "callspec", None), "params", {})
    return params.get("pack"), params.get("variant")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the items by model for xdist, name their case, and mark the known failures."""
    for item in items:
        model, variant = _parameters(item)
        if model is None:
            continue
        item.add_marker(pytest.mark.xdist_group(model))
        _name_case(item, session_of(config), model, variant)
        _mark_known_failure(session_of(config), item, model, variant)


def _stage(item: pytest.Item) -> str:
    stage = item.get_closest_marker("stage")
    assert stage is not None
    return str(stage.args[0])


def _name_case(
    item: pytest.Item, session: Session, model: str, variant: Optional[RunConfig]
) -> None:
    stage = _stage(item)
    # The same case has the same id whatever the engine, so that engines can be compared.
    name, _, parameters = item.name.rstrip("]").partition("[")
    tokens = [t for t in parameters.split("-") if variant is None or t != variant.engine]
    case = {
        "id": f"{item.path.name}::{name}[{'-'.join(tokens)}]",
        "model": model,
        "stage": stage,
    }
    item.user_properties += [("model", model), ("case", case)]
    item.user_properties.append(("command", rerun_command(item, item.config)))
    if variant is not None:
        version = session.capability["version"]
        item.user_properties += [("opencv", version), ("engine", variant.engine)]


def _mark_known_failure(
    session: Session, item: pytest.Item, model: str, variant: Optional[RunConfig]
) -> None:
    config = variant or session.variants()[0]
    name = getattr(item, "originalname", item.name)
    entry = match_known_failure(
        session.known_failures, session.case(model, config, _stage(item), name)
    )
    if entry is not None:
        reason = f"{entry.reason} {entry.link}".strip()
        item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Build the missing packs before the first test, so that progress garbles no test's line."""
    config = session.config
    models = sorted({m for m, _ in map(_parameters, session.items) if m}, key=list(MODELS).index)
    if config.option.collectonly or not models:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        session_of(config).build_missing(models, _announcer(config))


def _announcer(config: pytest.Config) -> Callable[[Event], None]:
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is None or hasattr(config, "workerinput"):
        # A worker of pytest-xdist has no terminal of its own, but shares standard error.
        return lambda event: print(f"conformance: {event}", file=sys.stderr, flush=True)
    return lambda event: terminal.write_line(f"conformance: {event}")


@pytest.fixture(scope="session")
def conformance_session(request: pytest.FixtureRequest) -> Session:
    """What this session knows of OpenCV, packs and runs."""
    return session_of(request.config)


@pytest.fixture(scope="session")
def pack(request: pytest.FixtureRequest, conformance_session: Session) -> Pack:
    """The reference pack of one model (indirect parameter: the model's name)."""
    return conformance_session.pack(request.param)


@pytest.fixture(scope="session")
def candidate(conformance_session: Session, pack: Pack, variant: RunConfig) -> CandidateRun:
    """What OpenCV answered to the pack's inputs, or how it failed: a test of import judges that."""
    return conformance_session.run(pack, variant)


class NotJudged(Exception):
    """The candidate gave no arrays to judge."""


@pytest.fixture
def answered(candidate: CandidateRun) -> CandidateRun:
    """The candidate, provided that it got as far as answering every input."""
    failure = candidate.failure_before("forward")
    if failure is not None:
        raise NotJudged(f"no answer to judge: {failure}")
    return candidate


@pytest.fixture
def verify(
    request: pytest.FixtureRequest, pack: Pack, conformance_session: Session
) -> Callable[[Judgement], None]:
    """Record a judgement with the case, and fail the test with the full message if it is bad."""
    _, variant = _parameters(request.node)

    def verify(judgement: Judgement) -> None:
        __tracebackhide__ = True
        request.node.user_properties.append(("judgement", judgement.as_dict()))
        if judgement.notes and judgement.passed:
            warnings.warn(f"{pack.model}: {judgement.notes}", ConformanceNote, stacklevel=2)
        if not judgement.passed:
            context = _context(request, pack, conformance_session, variant)
            pytest.fail(failure_message(judgement, context), pytrace=False)

    return verify


@pytest.fixture(scope="session")
def tolerances(conformance_session: Session) -> Tolerances:
    """The content of the tolerances file."""
    return conformance_session.tolerances


@pytest.fixture
def allowance(
    pack: Pack, variant: RunConfig, conformance_session: Session
) -> Callable[[str], Allowance]:
    """What a metric may reach on each of the pack's inputs, in this OpenCV as configured."""
    return lambda metric: conformance_session.allow(pack, variant, metric)


class ConformanceNote(UserWarning):
    """Something worth knowing that is no failure, such as a swap of classes inside the noise."""


def _context(
    request: pytest.FixtureRequest, pack: Pack, session: Session, variant: Optional[RunConfig]
) -> Context:
    return Context(
        model=pack.model,
        opencv=session.capability["version"],
        engine=variant.engine if variant else "",
        command=rerun_command(request.node, request.config),
    )


# What decides a case's answer; the engine and the model are in its name.
_REPEATED = ("--packs", "--weights", "--graph", "--importer", "--engine", "--target", "--threads")


def rerun_command(item: pytest.Item, config: pytest.Config) -> str:
    """Return the command that runs just this case again, with the options given now."""
    given = [(name, config.getoption(name)) for name in _REPEATED]
    kept = [f"{name}={value}" for name, value in given if value not in (None, _DEFAULTS.get(name))]
    location = os.path.relpath(item.path, config.invocation_params.dir)
    return shlex.join(["pytest", f"{location}::{item.name}", *kept])


def pytest_report_header(config: pytest.Config) -> Optional[list[str]]:
    """Name versions, CPU and packs where the suite is about to run."""
    return session_of(config).header() if _is_suite_run(config) else None


def _is_suite_run(config: pytest.Config) -> bool:
    if config.option.pyargs:
        return any(f"{arg}.".startswith("conformance.") for arg in config.args)
    suite = _PACKAGE / "suite"
    here = config.invocation_params.dir
    paths = [(here / arg.split("::")[0]).resolve() for arg in config.args]
    # The checkout's root counts, site-packages does not: it may lie below anyone's project.
    root = _PACKAGE.parent if (_PACKAGE.parent / "pytest.ini").exists() else _PACKAGE
    return any(path in (root, _PACKAGE, suite) or suite in path.parents for path in paths)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the verdict of each model and engine."""
    reports = [
        r for rs in terminalreporter.stats.values() for r in rs if isinstance(r, pytest.TestReport)
    ]
    table = verdict_table(reports, terminalreporter._tw.fullwidth)
    if table:
        terminalreporter.section("conformance")
        terminalreporter.write(table)
