"""What an evaluation must reach: the frameworks agree, and Keras' published accuracy is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from conformance.candidate import RunConfig
from conformance.pack.format import Pack
from conformance.verdict.limits import Limits

from .evaluation import Evaluation, published
from .statistics import Paired

# Points: Keras' figures were measured with other versions of decoder and frameworks.
PUBLISHED_WITHIN = 0.5
PUBLISHED_IMAGES = 50_000
METRIC = "softmax_l1_sum"


@dataclass(frozen=True)
class Finding:
    """One check. passed: None where there is nothing to check, for the reason in `text`."""

    passed: Optional[bool]
    text: str


def allowed_l1(pack: Pack, opencv: str, engine: str) -> float:
    """Return what the mean L1 between OpenCV and TensorFlow float32 may reach.

    On the pack's inputs OpenCV may stray so far from float64, and TensorFlow's float32 strays so
    far to the other side: the mean of the sum.
    """
    allowed = Limits(opencv).allow(pack, RunConfig(engine=engine), METRIC)
    return float(np.mean(allowed.values + allowed.noise))


def _agreement(paired: Paired, top: int) -> Finding:
    points = tuple(100 * x for x in (paired.difference.low, paired.difference.high))
    return Finding(
        paired.agree,
        f"top-{top}: OpenCV minus TensorFlow is {100 * paired.difference.value:+.3f} points (95 % "
        f"interval {points[0]:+.3f} to {points[1]:+.3f}); {paired.only_first} images only OpenCV "
        f"has right, {paired.only_second} only TensorFlow; McNemar p = {paired.p_value:.3g}",
    )


def top1(found: Evaluation, pack: Pack) -> Finding:
    """The top-1 accuracies differ by no more than chance explains."""
    return _agreement(found.top1, 1)


def top5(found: Evaluation, pack: Pack) -> Finding:
    """The top-5 accuracies differ by no more than chance explains."""
    return _agreement(found.top5, 5)


def mean_l1(found: Evaluation, pack: Pack) -> Finding:
    """The mean L1 between the frameworks is within the tolerance."""
    plan, mean = found.plan, found.summary["l1_mean"]
    allowed = allowed_l1(pack, plan.opencv, plan.job.config.engine)
    # Written so that a NaN does not pass.
    return Finding(bool(mean <= allowed), f"mean L1 is {mean:.3g}, allowed {allowed:.3g}")


def published_accuracy(found: Evaluation, pack: Pack) -> Finding:
    """With ImageNet weights, Keras' recipe and all images: the published accuracies are met."""
    expected = published(found.plan)
    images, recipe = len(found.plan.dataset.entries), found.plan.job.recipe
    if expected is None or recipe != "keras" or images < PUBLISHED_IMAGES:
        return Finding(
            None,
            f"Keras' published accuracy needs --weights imagenet, --preprocess keras and "
            f"{PUBLISHED_IMAGES} images (here: {found.plan.weights}, {recipe}, {images})",
        )
    lines, passed = [], True
    for name in ("opencv", "tensorflow"):
        for top, wanted in zip(("top1", "top5"), expected):
            got = 100 * found.summary[name][top]["value"]
            passed = passed and abs(got - wanted) <= PUBLISHED_WITHIN
            lines.append(f"{name} {top} {got:.3f} % (published {wanted:.3f} %)")
    return Finding(passed, f"within {PUBLISHED_WITHIN} points: {', '.join(lines)}")


CHECKS: dict[str, Callable[[Evaluation, Pack], Finding]] = {
    "top1": top1,
    "top5": top5,
    "mean_l1": mean_l1,
    "published": published_accuracy,
}
