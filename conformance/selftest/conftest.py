"""What self-tests share: Ctrl-C, packs, a sample of images and its answers.

Two processes of pytest-xdist (``-n 2``) make each of the costly things once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import pytest
from filelock import FileLock

from conformance.errors import ConformanceError
from conformance.pack.builder import jobs_of, require_tensorflow
from conformance.pack.pool import Pool
from conformance.pack.request import PackRequest

# The evaluation needs Pillow, which few self-tests do: it is imported where it is used.
if TYPE_CHECKING:
    from conformance.generated.store import GeneratedPack
    from conformance.imagenet.evaluation import Evaluation, Plan

# What takes longest, the longest first: tests that share no fixture of their file, then files.
LONG = (
    "test_faults.py::test_quick_faults_are_all_caught",
    "test_docs.py::test_commands_run",
    "test_campaign.py::test_short_campaign_holds",
    "test_opencl.py::test_real_models_agree_on_the_device",
    "test_freeze.py::test_all_of_this_holds_for_the_other_keras",
    "test_models.py::test_preprocessing_and_parameters_are_those_of_keras",
    "test_freeze.py::test_freezing_takes_less_than_half_the_memory",
    "test_weights.py",
    "test_own_suite.py",
    "test_plugin.py",
    "test_light.py",
    "test_bench.py",
    "test_predict_own.py",
    "test_recording.py",
    "test_imagenet_command.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: two processes then end together."""
    items.sort(key=lambda item: _rank(item.nodeid))


def _rank(test: str) -> int:
    return next((rank for rank, name in enumerate(LONG) if name in test), len(LONG))


def _scope(test: str) -> str:
    """Return what runs in one process: the test's file, or a long test by itself."""
    alone = any("::" in name and name in test for name in LONG)
    return test if alone else test.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Optional[Any]:
    """Keep the tests of a file, which share fixtures, in one process; the long ones are free."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _scope
    return scheduling


@pytest.fixture(autouse=True, scope="session")
def _children_are_no_workers() -> None:
    """pytest-benchmark, in a pytest that a test starts, times nothing if it finds these."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        del os.environ[name]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal, for children too: after ``nohup … &`` all would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without OpenCL: OpenCV's own way to switch it off."""
    monkeypatch.setenv("OPENCV_OPENCL_RUNTIME", "disabled")


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return the folder, made by the first process that asks for it."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = folder.with_suffix(".part")
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder


def _needs_tensorflow() -> None:
    try:
        require_tensorflow("keras3")
    except ConformanceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mobilenet_packs(shared: Path) -> Path:
    """A folder with mobilenet's pack, built by the command that pytest starts; others may join."""
    _needs_tensorflow()
    return once(shared / "packs", _build_mobilenet)


def _build_mobilenet(root: Path) -> None:
    events = list(Pool(jobs_of([PackRequest("mobilenet")], root)).events())
    assert [e.state for e in events if e.final] == ["built"], events[-1].step


@pytest.fixture
def tiny_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process believe that the tiny packs' producer is installed."""
    from .tiny_pack import PRODUCER

    monkeypatch.setattr("conformance.pack.request.producer_versions", lambda flavour: PRODUCER)
    monkeypatch.setattr("conformance.pack.builder.producer_versions", lambda flavour: PRODUCER)


@pytest.fixture(scope="session")
def generated_pack(shared: Path) -> GeneratedPack:
    """A pack of the first models, for the importers whose converters TensorFlow brings along."""
    _needs_tensorflow()
    from conformance.generated.store import Request, require_generated
    from conformance.reference.generated_pack import build_generated_pack

    from .sample_generated import PACKED

    request = Request(PACKED, 0, ("tensorflow", "tflite"))
    root = once(shared / "generated", lambda part: build_generated_pack(request, part, workers=1))
    return require_generated(root, request)


@pytest.fixture(scope="session")
def imagenet_home(shared: Path) -> Path:
    """A folder with packs, images and val.txt, of whose labels some are wrong."""
    _needs_tensorflow()
    from .imagenet_sample import labelled_sample

    return once(shared / "imagenet", labelled_sample)


@pytest.fixture(scope="session")
def plan(imagenet_home: Path) -> Plan:
    """The plan of all these images."""
    from conformance.imagenet.dataset import read_dataset

    from .imagenet_sample import sample_plan

    dataset = read_dataset(imagenet_home / "val", imagenet_home / "val.txt")
    return sample_plan(imagenet_home, dataset)


@pytest.fixture(scope="session")
def whole(plan: Plan, imagenet_home: Path) -> Evaluation:
    """The evaluation without any interruption."""
    from conformance.imagenet.evaluation import evaluate
    from conformance.imagenet.runner import in_threads

    with FileLock(imagenet_home / "whole.lock"):
        return evaluate(plan, imagenet_home / "whole", in_threads(2))
