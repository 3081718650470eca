"""What self-tests share: an order for two processes, Ctrl-C, a sample of images and its answers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.errors import ConformanceError
from conformance.pack.builder import require_tensorflow

# The evaluation needs Pillow, which few self-tests do: it is imported where it is used.
if TYPE_CHECKING:
    from conformance.imagenet.evaluation import Evaluation, Plan


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal, for children too: after ``nohup … &`` all would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def imagenet_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packs, images and val.txt, of whose labels some are wrong."""
    try:
        require_tensorflow("keras3")
    except ConformanceError as error:
        pytest.skip(str(error))
    from .imagenet_sample import labelled_sample

    return labelled_sample(tmp_path_factory.mktemp("imagenet"))


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
    from conformance.imagenet.evaluation import evaluate, in_threads

    return evaluate(plan, imagenet_home / "whole", in_threads(2))
