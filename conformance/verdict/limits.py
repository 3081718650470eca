"""What one run may stray: the tolerances, asked for an OpenCV version as it was configured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from conformance.candidate import CandidateRun, RunConfig
from conformance.pack.format import Layer, Pack

from .metrics import METRICS, Array, l1_sum
from .nodes import METRIC as LAYER_METRIC
from .nodes import NodeDeviation, profile
from .tolerance import Allowance, Tolerances, allow, load_tolerances, typical_logit_noise

# How many steps of its scale a number may differ from LiteRT's.
STEPS = 2.0


@dataclass(frozen=True)
class Limits:
    """What judging takes besides a pack and a run."""

    opencv: str  # the candidate's version
    tolerances: Tolerances = field(default_factory=load_tolerances)

    def allow(self, pack: Pack, config: RunConfig, metric: str) -> Allowance:
        """Return what `metric` may reach on each of the pack's inputs."""
        arrays = METRICS[metric].arrays
        sigmoid = pack.kind == "sigmoid"
        logits = (pack.load("logits_f32"), pack.load("logits_f64"), sigmoid)
        squeezed = arrays == "outputs" and pack.kind != "values"
        allowance = allow(
            self.tolerances,
            metric,
            pack.load(f"{arrays}_f32"),
            pack.load(f"{arrays}_f64"),
            model=pack.model,
            opencv=self.opencv,
            engine=config.engine,
            winograd=self._winograd(pack, config),
            logit_noise=typical_logit_noise(*logits) if squeezed else None,
            sigmoid=sigmoid,
        )
        summed = METRICS[metric].measure is l1_sum
        return in_steps(allowance, pack.step, logits[0].shape[1] if summed else 1)

    def allow_node(
        self, pack: Pack, config: RunConfig, float32: Array, float64: Array, step: float = 0.0
    ) -> Allowance:
        """Return what a node with these samples, [1, S], may stray. step: its scale, if it has one.

        The classic engine reads all nodes without Winograd convolution unless it was switched on;
        the new one, and a network that is cut, with it where the graph has a convolution for it.
        """
        ran = self._winograd(pack, config)
        allowance = allow(
            self.tolerances,
            LAYER_METRIC,
            float32,
            float64,
            model=pack.model,
            opencv=self.opencv,
            engine=config.engine,
            winograd=ran if config.engine == "new" or config.cut else bool(ran),
            estimated=True,
        )
        return in_steps(allowance, step)

    def _winograd(self, pack: Pack, config: RunConfig) -> Optional[bool]:
        """Return whether Winograd convolution ran; None where the OpenCV version decides."""
        return config.winograd if self.may_winograd(pack, config) else False

    def may_winograd(self, pack: Pack, config: RunConfig) -> bool:
        """Return whether the target has Winograd, and the graph anything that could run so."""
        return pack.manifest.winograd != 0 and self.tolerances.winograd_on(config.target)

    def profile(self, pack: Pack, run: CandidateRun) -> list[NodeDeviation]:
        """Return how far each node of the graph strays in a run that read the layers."""

        def allowed(layer: Layer) -> Allowance:
            return self.allow_node(pack, run.config, layer.f32[None], layer.f64[None], layer.step)

        return profile(pack.layers(), run, allowed)


def in_steps(allowance: Allowance, step: float, values: int = 1) -> Allowance:
    """Return what is allowed where the numbers go in steps: STEPS of them at each of the values.

    step: the scale, 0 of plain floating point, of which all stays as it is. Rounding differs by one
    step here and there, in each operation, and its root mean square by less.
    """
    if not step:
        return allowance
    least = np.full_like(allowance.values, STEPS * step * values)
    reason = f"{STEPS:g} steps of the scale {step:.3g}"
    return replace(allowance, values=np.maximum(allowance.values, least), reason=reason)
