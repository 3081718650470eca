"""Accuracy on the ImageNet validation set: OpenCV's is TensorFlow's, and what Keras publishes.

Run only when asked for: ``-m imagenet`` with ``--imagenet-dir`` and ``--imagenet-labels``.
"""

from __future__ import annotations

import pytest

from conformance.errors import ConformanceError
from conformance.imagenet.asked import Asked, results_folder
from conformance.imagenet.checks import CHECKS
from conformance.imagenet.command import evaluated
from conformance.imagenet.evaluation import Evaluation
from conformance.pack.format import Pack
from conformance.plugin import imagenet_runs as selecting
from conformance.plugin.hooks import failing, marked
from conformance.plugin.options import session_of
from conformance.processes.server import FrameworkError, framework
from conformance.session import Session

pytestmark = pytest.mark.imagenet


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the test over the models, the engines that are asked for, and the checks."""
    session = session_of(metafunc.config)
    models = marked(session, [name for name in session.models if name not in session.choices.own])
    # 50,000 images take hours: one engine, OpenCV's own choice, but where several are named.
    engines = session.engines if session.choices.engines else session.engines[-1:]
    metafunc.parametrize("pack", models, indirect=True, scope="session")
    metafunc.parametrize("engine", engines, indirect=True, scope="session")
    metafunc.parametrize("check", list(CHECKS))


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    """The engine that is evaluated (indirect parameter: its name)."""
    return str(request.param)


@pytest.fixture(scope="session")
def evaluation(
    request: pytest.FixtureRequest, pack: Pack, engine: str, conformance_session: Session
) -> Evaluation:
    """The model's evaluation on the images, which is written below --results."""
    asked = Asked(selecting.options_of(request.config))
    session = conformance_session
    with failing():
        plan = asked.plan(
            pack,
            asked.dataset(),
            session.capability,
            engine,
            session.choices.weights,
            session.choices.candidate_timeout,
        )
        folder = results_folder(request.config.getoption("--results"))
        try:
            return evaluated(asked, plan, folder)
        except FrameworkError as error:
            who = framework(error.module)
            raise ConformanceError(f"{who} gave no answer to judge: {error.message}") from error


def test_imagenet(
    request: pytest.FixtureRequest, evaluation: Evaluation, pack: Pack, engine: str, check: str
) -> None:
    """OpenCV's accuracy is TensorFlow's within chance, its L1 within tolerance."""
    properties = {"model": pack.model, "opencv": evaluation.plan.opencv, "engine": engine}
    request.node.user_properties += properties.items()
    finding = CHECKS[check](evaluation, pack)
    if finding.passed is None:
        pytest.skip(finding.text)
    if not finding.passed:
        pytest.fail(f"{pack.model} on OpenCV {evaluation.plan.opencv}: {finding.text}", False)
