"""The report's section on the ImageNet evaluation: accuracies of both frameworks side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

from conformance.imagenet.results import Accuracies, read_all
from conformance.models import model_order
from conformance.verdict.data import release

Data = dict[str, Any]
FOLDER = "imagenet"
# More images than this in a list nobody reads; the results file has all of them.
MOST_DISAGREEMENTS = 50


def read_accuracies(paths: Iterable[Path]) -> list[Accuracies]:
    """Return the evaluations below the folders of results among `paths`, by model and version."""
    files = (file for path in paths if path.is_dir() for file in path.glob(f"{FOLDER}/*.jsonl"))
    return sorted(read_all(files), key=_order)


def _order(found: Accuracies) -> tuple[Any, ...]:
    return model_order(found.header["model"]), release(found.header["opencv"])


def only_accuracies(path: Path) -> bool:
    """Return whether a folder of results holds evaluations and nothing else."""
    return path.is_dir() and not any(path.glob("*.jsonl")) and any(path.glob(f"{FOLDER}/*.jsonl"))


def accuracy_data(evaluations: Sequence[Accuracies]) -> Optional[Data]:
    """Return what the section's template shows, or None without evaluations."""
    if not evaluations:
        return None
    return {
        "evaluations": evaluations,
        "recipes": {e.header["preprocess"]: e.header["recipe"] for e in evaluations},
        "cpus": list(dict.fromkeys(e.header["cpu"] for e in evaluations)),
        "most": MOST_DISAGREEMENTS,
    }


def evaluation_rows(evaluations: Iterable[Accuracies]) -> list[Data]:
    """Return the chart's rows, mean ms an image; TensorFlow's once for each model, CPU, version."""
    rows: dict[tuple[str, str, str], Data] = {}
    for found in evaluations:
        head = found.header
        model, cpu = head["model"], head["cpu"]
        opencv = f"OpenCV {head['opencv']} {head['engine']}"
        place = {"version": head["opencv"], "engine": head["engine"]}
        theirs = f"TensorFlow {head['tensorflow']}"
        ms = {name: found.summary[name]["ms_an_image"] for name in ("opencv", "tensorflow")}
        row = {"model": model, "group": cpu}
        rows[model, cpu, opencv] = {**row, **place, "who": opencv, "ms": ms["opencv"]}
        rows[model, cpu, theirs] = {**row, "who": theirs, "ms": ms["tensorflow"]}
    return list(rows.values())
