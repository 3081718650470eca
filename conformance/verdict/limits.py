"""What one run may stray: the tolerances, asked for an OpenCV version as it was configured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from conformance.candidate import CandidateRun, RunConfig
from conformance.pack.format import Pack

from .metrics import METRICS
from .nodes import METRIC as LAYER_METRIC
from .nodes import NodeDeviation, profile
from .tolerance import Allowance, Tolerances, allow, load_tolerances, typical_logit_noise

if TYPE_CHECKING:
    from .metrics import Array


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
        return allow(
            self.tolerances,
            metric,
            pack.load(f"{arrays}_f32"),
            pack.load(f"{arrays}_f64"),
            model=pack.model,
            opencv=self.opencv,
            engine=config.engine,
            winograd=_winograd(pack, config),
            logit_noise=typical_logit_noise(*logits) if squeezed else None,
            sigmoid=sigmoid,
        )

    def allow_node(
        self, pack: Pack, config: RunConfig, float32: Array, float64: Array
    ) -> Allowance:
        """Return what a node with these samples, [1, S], may stray.

        The classic engine reads all nodes without Winograd convolution unless it was switched on;
        the new one, and a network that is cut, with it where the graph has a convolution for it.
        """
        ran = _winograd(pack, config)
        return allow(
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

    def profile(self, pack: Pack, run: CandidateRun) -> list[NodeDeviation]:
        """Return how far each node of the graph strays in a run that read the layers."""

        def allowed(float32: Array, float64: Array) -> Allowance:
            return self.allow_node(pack, run.config, float32, float64)

        return profile(pack.layers(), run, allowed)


def _winograd(pack: Pack, config: RunConfig) -> Optional[bool]:
    """Return whether Winograd convolution ran; None where the OpenCV version decides."""
    # Whatever the switch, the graph may have no convolution that could run so.
    return False if pack.manifest.winograd == 0 else config.winograd
