"""Allowed deviations: how they are computed, and what a tolerances file may not contain."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.commands.tolerances import PLAIN, WINOGRAD, configured
from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.verdict.limits import Limits
from conformance.verdict.metrics import METRICS
from conformance.verdict.tolerance import (
    EPS32,
    Tolerances,
    allow,
    least_share,
    load_tolerances,
    noise_floor,
    softmax_noise,
)

from .tiny import tiny_pack

Edit = Callable[[str, str], Path]

_TRUTH = np.full((5, 4), 0.25)
# L1 deviations of the five inputs: 0 (lucky), 1e-5, 2e-5, 3e-5 and 8e-4 (unstable).
_FLOAT32 = _TRUTH + np.array([0, 1e-5, 2e-5, 3e-5, 8e-4])[:, None] / 4


@pytest.fixture(scope="module")
def tolerances() -> Tolerances:
    """The committed tolerances."""
    return load_tolerances()


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """A function that writes the committed file with one text replaced and gives its path."""

    def edit(old: str, new: str) -> Path:
        content = fixture_path("tolerances.toml").read_text(encoding="utf-8")
        assert old in content
        path = tmp_path / "tolerances.toml"
        path.write_text(content.replace(old, new), encoding="utf-8")
        return path

    return edit


def test_any_class_may_win_where_logits_are_all_rounding() -> None:
    """An input whose logits stray by 1 or more is allowed any softmax; the others are not."""
    softmax = np.array([[0.999, 0.001], [0.999, 0.001]])
    noise = softmax_noise(softmax, np.array([2.0, 1e-6]))
    assert (noise[0] >= 0.999).all()
    assert (noise[1] < 1e-6).all()


def test_a_lucky_input_counts_as_the_median() -> None:
    """The noise floor is an input's own deviation, but at least the median over the inputs."""
    floor = noise_floor("softmax_l1_sum", _FLOAT32, _TRUTH)
    np.testing.assert_allclose(floor, [2e-5, 2e-5, 2e-5, 3e-5, 8e-4], rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_allowed_is_the_multiple_of_the_noise(tolerances: Tolerances, metric: str) -> None:
    """Above the absolute floor, what is allowed is the rule's multiple of the noise floor."""
    allowance = allow(tolerances, metric, _FLOAT32, _TRUTH, model="vgg16", opencv="4.6.0")
    expected = tolerances.rules[metric].multiple * noise_floor(metric, _FLOAT32, _TRUTH)
    assert (expected > allowance.floor).all()
    np.testing.assert_array_equal(allowance.values, expected)


def test_without_noise_the_absolute_floor_is_allowed(tolerances: Tolerances) -> None:
    """Where float32 equals float64 exactly, so many eps of the truth's size are still allowed."""
    allowance = allow(tolerances, "softmax_l1_sum", _TRUTH, _TRUTH, model="vgg16", opencv="4.6.0")
    eps = tolerances.rules["softmax_l1_sum"].floor_eps
    np.testing.assert_allclose(allowance.values, eps * EPS32)


@pytest.mark.parametrize(
    ("opencv", "winograd", "ran"),
    [
        ("4.6.0", None, False),
        ("4.7.0", None, True),
        ("4.7.0-dev", None, True),
        ("5.0.0-alpha", None, True),
        ("4.14.0", False, False),
        ("4.6.0", True, True),
    ],
)
def test_winograd_is_allowed_its_multiple_only_where_it_ran(
    tolerances: Tolerances, opencv: str, winograd: Optional[bool], ran: bool
) -> None:
    """From 4.7.0 on, or where it was switched on, Winograd's larger multiple applies."""
    allowance = allow(
        tolerances,
        "logits_linf",
        _FLOAT32,
        _TRUTH,
        model="resnet50",
        opencv=opencv,
        winograd=winograd,
    )
    rule = tolerances.rules["logits_linf"]
    assert allowance.multiple == (rule.multiple_winograd if ran else rule.multiple)
    assert rule.multiple_winograd > rule.multiple


_OVERRIDE = """
[[override]]
model = ["resnet101", "resnet152"]
metric = "softmax_l1_sum"
opencv = ">=4.7,<5"
engine = "classic"
multiple = 33
reason = "deep"
"""


@pytest.mark.parametrize(
    ("model", "metric", "opencv", "engine", "applies"),
    [
        ("resnet101", "softmax_l1_sum", "4.7.0", "classic", True),
        ("resnet50", "softmax_l1_sum", "4.7.0", "classic", False),
        ("resnet101", "softmax_linf", "4.7.0", "classic", False),
        ("resnet101", "softmax_l1_sum", "5.0.0-dev", "classic", False),
        ("resnet101", "softmax_l1_sum", "4.7.0", "new", False),
    ],
)
def test_an_override_applies_where_all_it_names_matches(
    edited: Edit, model: str, metric: str, opencv: str, engine: str, applies: bool
) -> None:
    """An override replaces the multiple of exactly the cases it names, and gives its reason."""
    tolerances = load_tolerances(edited("# [[override]]", _OVERRIDE + "#"))
    allowance = allow(
        tolerances, metric, _FLOAT32, _TRUTH, model=model, opencv=opencv, engine=engine
    )
    assert (allowance.multiple == 33) is applies
    assert (allowance.reason == "deep") is applies


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[metrics.softmax_linf]", "[metrics.softmax_lmax]", "softmax_linf"),
        ("multiple_winograd = ", "multiple_vinograd = ", "multiple_winograd"),
        ("floor_eps = 64", "floor_eps = 0", "positive number, not 0"),
        ("floor_eps = 64", "floor_eps = nan", "positive number, not nan"),
        ("floor_eps = 64", "floor_eps = '64'", "positive number, not '64'"),
        ('opencv = ">=4.7"', 'opencv = "since 4.7"', "'since 4.7' is no version specifier"),
        ("schema = 1", "schema = 2", "schema = 2, but this version reads schema = 1"),
        ("schema = 1", "schema == 1", "not valid TOML"),
        ("# [[override]]", _OVERRIDE.replace("resnet101", "resnet11"), r"1: unknown.*'resnet101'"),
        ("# [[override]]", _OVERRIDE.replace('"deep"', '""'), "1: 'reason' is missing"),
        ("# [[override]]", _OVERRIDE.replace("= 33", "= true"), "positive number, not True"),
        ("# [[override]]", _OVERRIDE + 'winograd = "on"', "true or false"),
        ("# [[override]]", _OVERRIDE.replace("softmax_l1_sum", "l1"), "unknown metric 'l1'"),
    ],
)
def test_a_wrong_file_is_refused(edited: Edit, old: str, new: str, message: str) -> None:
    """Each mistake in the file is an error that names the file and what is wrong in it."""
    path = edited(old, new)
    with pytest.raises(ConformanceError, match=message) as error:
        load_tolerances(path)
    assert str(path) in str(error.value)


def test_a_missing_metric_is_refused(edited: Edit) -> None:
    """Every metric of the suite needs a rule."""
    path = edited("[metrics.batch_linf]", "[metrics.other]")
    with pytest.raises(ConformanceError, match=r"unknown metric 'other'|batch_linf.*missing"):
        load_tolerances(path)


@pytest.mark.parametrize("count", [10, 100, 5000])
def test_few_values_estimate_noise_by_luck(count: int) -> None:
    """Of a thousand estimates from so many values, about one is below the share counted with."""
    values = np.random.default_rng(count).standard_normal((20_000, count), np.float32)
    below = np.mean(np.sqrt((values**2).mean(axis=1)) < least_share(count))
    assert 0 < below < 0.003


@pytest.mark.parametrize(
    ("engine", "target", "convolutions", "kind", "switches"),
    [
        ("classic", "cpu", 13, PLAIN, [False]),
        ("classic", "cpu", 13, WINOGRAD, [True]),
        ("classic", "cpu", 0, WINOGRAD, []),
        ("classic", "opencl", 13, PLAIN, [False]),
        ("classic", "opencl", 13, WINOGRAD, []),
        ("new", "cpu", 13, PLAIN, []),
        ("new", "cpu", 13, WINOGRAD, [None]),
        ("new", "cpu", 0, PLAIN, [None]),
        ("new", "cpu", 0, WINOGRAD, []),
    ],
)
def test_multiples_are_measured_by_runs_of_their_kind(
    tmp_path: Path,
    engine: str,
    target: str,
    convolutions: int,
    kind: str,
    switches: list[Optional[bool]],
) -> None:
    """A run with Winograd tells of the wide multiple only, one without it of the plain one."""
    pack = tiny_pack(tmp_path)
    pack.manifest.winograd = convolutions
    config = RunConfig(engine=engine, target=target)
    runs = configured(Limits("4.14.0"), pack, config, kind)
    assert [run.winograd for run in runs] == switches
