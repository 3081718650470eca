"""How far TensorFlow's float32 strays on this machine: ``python -m conformance.reference.noise``.

A process of its own for each number of threads, and with oneDNN on or off (TF_ENABLE_ONEDNN_OPTS),
as TensorFlow reads both once. Prints one JSON object: {metric: greatest ratio of the deviation from
float64 to the pack's noise floor}.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from conformance.pack.format import open_pack
from conformance.processes.serve import answer_once
from conformance.verdict.metrics import METRICS
from conformance.verdict.tolerance import noise_floor, typical_logit_noise

from .graph import read_graph
from .oracle import run

MEASURED = (
    "softmax_l1_sum",
    "softmax_l1_mean",
    "softmax_linf",
    "logits_l1_mean",
    "logits_linf",
)


def noise_ratios(pack_folder: Path) -> dict[str, float]:
    """Return {metric: greatest deviation in noise floors} of TensorFlow as this process has it."""
    pack = open_pack(pack_folder)
    graph = read_graph(pack.graph_path, pack.manifest.tensors)
    answers = run(graph, pack.load("inputs"))
    found = {"outputs": answers.outputs, "logits": answers.logits}
    logit_noise = typical_logit_noise(pack.load("logits_f32"), pack.load("logits_f64"))
    ratios = {}
    for name in MEASURED:
        metric = METRICS[name]
        single, double = (pack.load(f"{metric.arrays}_{kind}") for kind in ("f32", "f64"))
        spread = logit_noise if metric.arrays == "outputs" else None
        floor = noise_floor(name, single, double, spread)
        ratios[name] = float(np.max(metric.measure(found[metric.arrays], double) / floor))
    return ratios


def main(folder: str, threads: str) -> dict[str, float]:
    """Measure the pack in `folder` on so many threads."""
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    return noise_ratios(Path(folder))


if __name__ == "__main__":
    answer_once(lambda: main(*sys.argv[1:]))
