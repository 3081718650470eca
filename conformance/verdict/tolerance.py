"""How far a candidate may stray from the float64 truth: data from fixtures/tolerances.toml.

allowed = max(multiple * noise floor, floor_eps * float32 eps * size of the truth)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
from packaging.specifiers import SpecifierSet

from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.tables import (
    Table,
    check_keys,
    check_model,
    holds,
    nearest,
    read_toml,
    specifier,
    text,
    texts,
)

from .metrics import METRICS, Array, Floats

EPS32 = float(np.finfo(np.float32).eps)  # 2**-23, the spacing of float32 numbers at 1


@dataclass(frozen=True)
class Rule:
    """Of one metric: allowed multiples of the noise floor, and the floor in float32 eps."""

    metric: str
    multiple: float
    multiple_winograd: float
    floor_eps: float


@dataclass(frozen=True)
class Override:
    """Another multiple for some models, versions or engine, with the reason why."""

    models: tuple[str, ...]
    metrics: tuple[str, ...]
    opencv: SpecifierSet
    engine: Optional[str]
    winograd: Optional[bool]
    multiple: float
    reason: str


@dataclass(frozen=True)
class Tolerances:
    """The content of a tolerances file. sums_to_one_eps: |sum of the softmax - 1| in eps."""

    path: Path
    winograd: SpecifierSet  # the versions that have it
    winograd_targets: tuple[str, ...]  # and the targets
    sums_to_one_eps: float
    rules: dict[str, Rule]
    overrides: tuple[Override, ...]

    def winograd_on(self, target: str) -> bool:
        """Return whether convolutions may run as Winograd on that target."""
        return target in self.winograd_targets


@dataclass(frozen=True)
class Allowance:
    """What is allowed, input by input: `values`, `noise` and `floor` are float64 [N]."""

    metric: str
    values: Floats
    noise: Floats
    floor: Floats
    multiple: float
    reason: str

    def of(self, part: slice) -> Allowance:
        """Return what is allowed on some of the inputs."""
        few = (self.values[part], self.noise[part], self.floor[part])
        return replace(self, values=few[0], noise=few[1], floor=few[2])


def noise_floor(
    metric: str,
    float32: Array,
    float64: Array,
    logit_noise: Optional[Floats] = None,
    sigmoid: bool = False,
) -> Floats:
    """Return how far float32 rounding alone takes TensorFlow from the truth: float64 [N].

    float32, float64: [N, C], the pack's ``outputs_*`` or ``logits_*``. An input's own deviation
    can be small by luck, so that another order of summation strays many times farther. It counts
    as at least the median over the pack's inputs and, for softmax or sigmoid outputs, as what
    `logit_noise` [N] does to this input's. The median, not the maximum: one unstable input (a
    constant image, say) must not widen all the others.
    """
    own = METRICS[metric].measure(float32, float64)
    noise = np.maximum(own, np.median(own))
    if logit_noise is None:
        return noise
    typical = (sigmoid_noise if sigmoid else softmax_noise)(float64, logit_noise)
    return np.asarray(np.maximum(noise, METRICS[metric].measure(typical, 0 * typical)))


def typical_logit_noise(logits32: Array, logits64: Array, sigmoid: bool = False) -> Floats:
    """Return the root mean square deviation of a logit, at least the median over the inputs: [N].

    A shift of all logits of an input, which its softmax does not see, is left out; a sigmoid does.
    """
    strayed = logits32.astype(np.float64) - logits64
    own = np.sqrt((strayed**2).mean(axis=1)) if sigmoid else strayed.std(axis=1)
    return np.asarray(np.maximum(own, np.median(own)))


def softmax_noise(softmax: Array, logit_noise: Floats) -> Floats:
    """Return the mean |change| of each probability, [N, C], for independent normal logit errors.

    First order: dp_i = p_i (dz_i - sum_j p_j dz_j), so that the variance of dp_i is
    (logit_noise p_i)^2 ((1 - p_i)^2 + sum_{j != i} p_j^2); a normal variable's mean |value| is
    sqrt(2 / pi) of its standard deviation. Where logits stray by 1 or more, first order says
    nothing: any class may take the place of any other (the deepest EfficientNets on noise).
    """
    p, spread = softmax.astype(np.float64), logit_noise[:, None]
    others = np.sum(p**2, axis=1, keepdims=True) - p**2
    first_order = spread * p * np.sqrt(((1 - p) ** 2 + others) * 2 / np.pi)
    return np.where(spread < 1, first_order, np.maximum(p, 1 - p))


def sigmoid_noise(sigmoid: Array, logit_noise: Floats) -> Floats:
    """Return the mean |change| of each value p, [N, C]: p (1 - p) logit_noise sqrt(2 / pi)."""
    p = sigmoid.astype(np.float64)
    return np.asarray(logit_noise[:, None] * p * (1 - p) * np.sqrt(2 / np.pi))


def allow(
    tolerances: Tolerances,
    metric: str,
    float32: Array,
    float64: Array,
    *,
    model: str,
    opencv: str,
    engine: str = "classic",
    winograd: Optional[bool] = None,
    logit_noise: Optional[Floats] = None,
    sigmoid: bool = False,
    estimated: bool = False,
) -> Allowance:
    """Return what `metric` may reach on each input, for `model` on OpenCV version `opencv`.

    logit_noise: [N], from typical_logit_noise, for metrics of the softmax (or sigmoid) outputs.
    winograd: True or False where it was switched explicitly, None for the version's default.
    estimated: the noise is a root mean square of as few as C values, which luck makes small.
    """
    ran = holds(tolerances.winograd, opencv) if winograd is None else winograd
    multiple, reason = _multiple(tolerances, metric, model, opencv, engine, ran)
    noise = noise_floor(metric, float32, float64, logit_noise, sigmoid)
    if estimated:
        noise = noise / least_share(float64.shape[1])
    size = METRICS[metric].measure(float64, np.zeros_like(float64))
    floor = tolerances.rules[metric].floor_eps * EPS32 * size
    return Allowance(metric, np.maximum(multiple * noise, floor), noise, floor, multiple, reason)


def least_share(count: int) -> float:
    """Return what a root mean square of `count` normal values is at least, in 999 of 1000 cases.

    In units of their standard deviation: 0.37 for 10 values, 0.97 for 2000. The quantile of the
    chi-squared distribution by Wilson and Hilferty (1931), good to 2 % from 10 values on.
    """
    spread = 2 / (9 * count)
    return float(max(1 - spread - 3.09 * np.sqrt(spread), 0.1) ** 1.5)


def load_tolerances(path: Optional[Path] = None) -> Tolerances:
    """Read a tolerances file, by default the committed one.

    Raises ConformanceError naming the file and the table for an unknown key, metric or model, a
    multiple that is not positive, an invalid specifier, or an override without a reason.
    """
    path = path or fixture_path("tolerances.toml")
    data = read_toml(path)
    top = ("schema", "provenance", "winograd", "sums_to_one", "metrics", "override")
    check_keys(str(path), data, top, top[2:5])
    rules = {
        name: _rule(f"{path} [metrics.{name}]", name, t) for name, t in data["metrics"].items()
    }
    absent = sorted(METRICS.keys() - rules.keys())
    if absent:
        raise ConformanceError(f"{path}: [metrics.{absent[0]}] is missing")
    return Tolerances(
        path,
        specifier(f"{path} [winograd]", data["winograd"], "opencv"),
        texts(f"{path} [winograd]", data["winograd"], "target"),
        _positive(f"{path} [sums_to_one]", data["sums_to_one"], "floor_eps"),
        rules,
        tuple(
            _override(f"{path} [[override]] {number}", table)
            for number, table in enumerate(data.get("override", []), 1)
        ),
    )


def _multiple(
    tolerances: Tolerances, metric: str, model: str, opencv: str, engine: str, winograd: bool
) -> tuple[float, str]:
    for entry in tolerances.overrides:
        if (
            metric in entry.metrics
            and model in entry.models
            and holds(entry.opencv, opencv)
            and entry.engine in (None, engine)
            and entry.winograd in (None, winograd)
        ):
            return entry.multiple, entry.reason
    rule = tolerances.rules[metric]
    if winograd:
        return rule.multiple_winograd, "Winograd convolution"
    return rule.multiple, "no Winograd convolution"


def _rule(where: str, name: str, table: Table) -> Rule:
    keys = ("multiple", "multiple_winograd", "floor_eps")
    _known_metric(where, name)
    check_keys(where, table, keys, keys)
    return Rule(name, *(_positive(where, table, key) for key in keys))


def _override(where: str, table: Table) -> Override:
    keys = ("model", "metric", "opencv", "engine", "winograd", "multiple", "reason")
    check_keys(where, table, keys, ("model", "metric", "multiple", "reason"))
    models, metrics = texts(where, table, "model"), texts(where, table, "metric")
    for name in metrics:
        _known_metric(where, name)
    for name in models:
        check_model(where, name)
    winograd: Any = table.get("winograd")
    if winograd not in (None, True, False):
        raise ConformanceError(f"{where}: 'winograd' must be true or false, not {winograd!r}")
    return Override(
        models,
        metrics,
        specifier(where, table, "opencv"),
        text(where, table, "engine"),
        winograd,
        _positive(where, table, "multiple"),
        text(where, table, "reason") or "",
    )


def _known_metric(where: str, name: str) -> None:
    if name not in METRICS:
        raise ConformanceError(f"{where}: unknown metric {name!r}{nearest(name, [*METRICS])}")


def _positive(where: str, table: Table, key: str) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
        raise ConformanceError(f"{where}: {key!r} must be a positive number, not {value!r}")
    return float(value)
