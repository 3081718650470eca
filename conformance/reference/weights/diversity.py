"""Do a model's answers differ from photo to photo? Weights that answer alike test nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.inputs.images import check_inputs
from conformance.models import ModelSpec, get_model
from conformance.reference.weights import build_model

MIN_CLASSES = 6
MEDIAN_RANGE = (0.1, 0.95)


@dataclass(frozen=True)
class Diversity:
    """Top-1 answers on the 16 check crops.

    classes: how many distinct ones. median_top1, lowest_top1, highest_top1: probabilities.
    """

    model: str
    classes: int
    median_top1: float
    lowest_top1: float
    highest_top1: float

    @property
    def sufficient(self) -> bool:
        """Whether there are at least MIN_CLASSES classes and the median is in MEDIAN_RANGE."""
        low, high = MEDIAN_RANGE
        return self.classes >= MIN_CLASSES and low <= self.median_top1 <= high


def diversity(model_name: str, weights: str = "synthetic") -> Diversity:
    """Build the model with `weights` and return how its answers to 16 unseen crops differ.

    Raises ConformanceError for an unknown model or weights that can't be had.
    """
    spec = get_model(model_name)
    return measure(build_model(spec, weights), spec)


def measure(model: Any, spec: ModelSpec) -> Diversity:
    """Return the diversity of a model that is already built."""
    outputs = np.asarray(model.predict_on_batch(check_inputs(spec)))
    top1 = outputs.max(axis=1)
    return Diversity(
        model=spec.name,
        classes=len(set(outputs.argmax(axis=1).tolist())),
        median_top1=float(np.median(top1)),
        lowest_top1=float(top1.min()),
        highest_top1=float(top1.max()),
    )
