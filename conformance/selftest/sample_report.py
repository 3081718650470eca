"""Results and benchmark files for the report's self-tests: any number of versions, all verdicts.

``python -m conformance.selftest.sample_report DIR`` writes those of the full matrix, to look at.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.models import MODELS
from conformance.results.gate import DEVIATION

from .sample_results import write

VERSIONS = (
    *("4.5.1", "4.5.3", "4.5.5", "4.6.0", "4.7.0", "4.8.1", "4.9.0", "4.10.0", "4.11.0", "4.12.0"),
    *("4.13.0", "4.14.0", "5.0.0"),
)
ENGINES = ("classic", "new")
SAMPLES = Path(__file__).with_name("samples")
NODES = 300
CASES = 26
# Reasons come from anywhere, and must not become part of the page.
HOSTILE = "reason with <script>alert(1)</script> & </script> and \u2028 in it"


def write_matrix(
    folder: Path,
    versions: Sequence[str] = VERSIONS,
    models: Sequence[str] = tuple(MODELS),
    layers: bool = True,
    **head: Any,
) -> list[Path]:
    """Write a results file for each of `versions` and both engines, and return their paths."""
    packs = {model: f"{model[:4]}:{len(model)}" for model in models}
    paths = []
    for version in versions:
        for engine in ENGINES:
            lines = [line for model in models for line in _model(model, version, engine, layers)]
            path = folder / f"{version}-{engine}.jsonl"
            paths.append(write(path, lines, version=version, engine=engine, packs=packs, **head))
    return paths


def _outcome(model: str, version: str, engine: str) -> str:
    if version.startswith("4.5.") and model == "nasnetlarge":
        return "errored"
    if version in ("4.7.0", "4.8.1") and model == "mobilenet":
        return "failed"
    return "xfailed" if engine == "new" and model == "xception" else "passed"


def _model(model: str, version: str, engine: str, layers: bool) -> list[dict[str, Any]]:
    dice = random.Random(f"{model} {version} {engine}")
    outcome = _outcome(model, version, engine)
    factor = 20 if outcome == "failed" else dice.choice((1.3, 1.3, 2.1))
    lines = [_case(model, number, outcome, factor, engine) for number in range(CASES)]
    if outcome == "errored":
        return lines
    lines.append(
        {
            "kind": "run",
            "model": model,
            "variant": "",
            "outputs_sha256": f"{dice.getrandbits(256):064x}",
            "deviation": {DEVIATION: 3e-5 * factor * dice.uniform(0.95, 1.05)},
            "noise": {DEVIATION: 3e-5},
            "median_ms": 20 * (1 + list(MODELS).index(model)) * dice.uniform(0.9, 1.4),
            "peak_mib": 400.0,
        }
    )
    return [*lines, _layers(model, factor, dice)] if layers else lines


def _case(model: str, number: int, outcome: str, factor: float, engine: str) -> dict[str, Any]:
    bad = outcome != "passed" and number % 9 == 0
    case_id = f"test_agreement.py::test_softmax[{model}-metric_{number}]"
    line: dict[str, Any] = {"kind": "case", "id": case_id, "model": model, "stage": "agreement"}
    line |= {"variant": "", "outcome": outcome if bad else "passed"}
    if outcome != "errored":
        line |= {"metric": f"metric_{number}", "observed": 4e-5 * factor, "allowed": 3e-4}
    if bad:
        reason = f"{model}: {HOSTILE}\n" + "observed 6.1e-03 where 3.0e-04 is allowed\n" * 8
        line |= {
            "reason": reason,
            "command": f"pytest 'conformance/suite/{case_id}' --engine={engine}",
        }
    return line


def _layers(model: str, factor: float, dice: random.Random) -> dict[str, Any]:
    noise = [1e-7 * math.exp(n / 80) * random.Random(n).uniform(0.5, 2) for n in range(NODES)]
    strayed = [
        value * dice.uniform(0.8, 1.6) * (factor if n > 120 else 1.3)
        for n, value in enumerate(noise)
    ]
    absent = [None if n % 4 == 3 else value for n, value in enumerate(strayed)]
    return {
        "kind": "layers",
        "model": model,
        "variant": "",
        "nodes": [f"{model}/block_{n // 6}/{_OPS[n % 6].lower()}_{n}" for n in range(NODES)],
        "ops": [_OPS[n % 6] for n in range(NODES)],
        "observed": absent,
        "noise": noise,
        "allowed": [8 * value for value in noise],
    }


_OPS = ("Conv2D", "FusedBatchNormV3", "Relu", "Pad", "DepthwiseConv2dNative", "AddV2")


def bench_document(
    cpu: str = "AMD EPYC 9R14",
    threads: int = 2,
    opencv: str = "5.0.0",
    rounds: int = 20,
    memory: float = 50.0,
) -> dict[str, Any]:
    """Return a file as pytest-benchmark writes it, cut to what the report reads."""
    base = {"mobilenet": 14.0, "resnet50": 61.0}
    factors = {"opencv": 1.0, "tensorflow": 1.25, "tensorflow-eager": 2.6}
    benchmarks = []
    for model, ms in base.items():
        for framework, factor in factors.items():
            dice = random.Random(f"{model} {framework} {opencv}")
            data = [ms * factor * (1 + abs(dice.gauss(0, 0.04))) / 1e3 for _ in range(rounds)]
            info: dict[str, Any] = {"model": model, "framework": framework, "opencv": opencv}
            info |= {"engine": "new"}
            info |= {"tensorflow": "2.21.0", "threads": threads, "cpu": cpu, "batch": 1}
            info |= {"pack": "9ba6c5579dfb04db", "peak_mib": 210.5}
            if framework == "opencv":
                info |= {"load_ms": ms, "first_ms": 3 * ms, "memory_mib": memory * ms / 14}
            name = f"test_inference_time[{model}-{framework}]"
            stats: dict[str, Any] = {"data": [round(s, 6) for s in data]}
            stats["median"] = sorted(data)[rounds // 2]
            benchmarks.append({"name": name, "group": model, "stats": stats, "extra_info": info})
    return {
        "datetime": "2026-11-20T10:00:00",
        "machine_info": {"node": "sample"},
        "benchmarks": benchmarks,
    }


if __name__ == "__main__":
    print(f"{len(write_matrix(Path(sys.argv[1])))} results files in {sys.argv[1]}")
