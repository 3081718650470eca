"""Results files made on the spot for the self-tests of results, gate, history and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.results.cases import writing
from conformance.results.gate import DEVIATION

PACKS = {"mobilenet": "k1:c1", "resnet50": "k2:c2"}


def header(version: str = "4.14.0", engine: str = "classic", **changes: Any) -> dict[str, Any]:
    """Return a header of `version`, other fields by `changes`."""
    return {
        "kind": "header",
        "conformance": "0",
        "opencv": {"version": version, "distribution": f"opencv-python-headless {version}"},
        "engine": engine,
        "importer": "tensorflow",
        "backend": "default",
        "target": "cpu",
        "graph": "opencv",
        "weights": "synthetic",
        "keras": "keras3",
        "environment": {"python": "3.11.7", "numpy": "2.0", "cpu": "AVX2", "threads": 2},
        "packs": PACKS,
        **changes,
    }


def case(
    model: str, test: str = "test_top1", outcome: str = "passed", **more: Any
) -> dict[str, Any]:
    """Return a case line."""
    stage = "parse" if test == "test_parse" else "agreement"
    case_id = f"test_agreement.py::{test}[{model}]"
    line = {"kind": "case", "id": case_id, "model": model, "stage": stage, "outcome": outcome}
    return {**line, **more}


def run(model: str, deviation: float = 1e-4, bits: str = "a") -> dict[str, Any]:
    """Return a run line whose L1 to float64 is `deviation`, with a noise floor of 1e-4."""
    return {
        "kind": "run",
        "model": model,
        "variant": "",
        "outputs_sha256": bits * 64,
        "deviation": {DEVIATION: deviation},
        "noise": {DEVIATION: 1e-4},
        "median_ms": 10.0,
        "peak_mib": 100.0,
    }


def write(path: Path, lines: list[dict[str, Any]], **head: Any) -> Path:
    """Write a complete results file of `lines` at `path` and return the path."""
    with writing(path, header(**head)) as writer:
        for line in lines:
            writer.write(line)
    return path
