"""The line of a results file that a run of OpenCV leaves: bits, deviation, cost."""

from __future__ import annotations

import hashlib

import numpy as np

from conformance.candidate import CandidateRun
from conformance.pack.format import Pack
from conformance.pack.sampling import SAMPLED
from conformance.verdict.judgement import json_number
from conformance.verdict.metrics import METRICS

from .lines import Line


def run_line(pack: Pack, run: CandidateRun, variant: str = "") -> Line:
    """Return the line of a run that answered: bits, greatest and median deviation, cost.

    deviation: OpenCV from float64; noise: TensorFlow's float32 from float64; both by metric.
    """
    assert run.outputs is not None
    assert run.times_ms is not None
    candidates = {"outputs": (run.outputs, slice(None)), "logits": (run.logits, SAMPLED)}
    deviation, noise = {}, {}
    for name in ("softmax_l1_sum", "softmax_linf", "logits_linf"):
        metric = METRICS[name]
        candidate, part = candidates[metric.arrays]
        truth = pack.load(f"{metric.arrays}_f64")[part]
        if candidate is None or candidate.shape != truth.shape:
            continue
        reference = pack.load(f"{metric.arrays}_f32")[part]
        for suffix, over_inputs in (("", np.max), ("_median", np.median)):
            strayed = over_inputs(metric.measure(candidate, truth))
            deviation[name + suffix] = json_number(float(strayed))
            noise[name + suffix] = float(over_inputs(metric.measure(reference, truth)))
    return {
        "kind": "run",
        "model": pack.model,
        "variant": variant,
        "outputs_sha256": hashlib.sha256(run.outputs.tobytes()).hexdigest(),
        "deviation": deviation,
        "noise": noise,
        "median_ms": float(np.median(run.times_ms)),
        "peak_mib": run.peak_mib,
    }
