"""What the self-tests of the ImageNet evaluation share: images, a pack, TensorFlow's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.errors import ConformanceError
from conformance.imagenet.dataset import read_dataset
from conformance.imagenet.evaluation import Evaluation, Plan, evaluate
from conformance.imagenet.runner import in_threads
from conformance.pack.builder import require_tensorflow

from .imagenet_sample import labelled_sample, sample_plan


@pytest.fixture(scope="session")
def imagenet_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packs, images and val.txt, of whose labels some are wrong."""
    try:
        require_tensorflow("keras3")
    except ConformanceError as error:
        pytest.skip(str(error))
    return labelled_sample(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="session")
def plan(imagenet_home: Path) -> Plan:
    """The plan of all these images."""
    dataset = read_dataset(imagenet_home / "val", imagenet_home / "val.txt")
    return sample_plan(imagenet_home, dataset)


@pytest.fixture(scope="session")
def whole(plan: Plan, imagenet_home: Path) -> Evaluation:
    """The evaluation without any interruption."""
    return evaluate(plan, imagenet_home / "whole", in_threads(2))
