"""The report's section on the ImageNet evaluation: accuracies of both frameworks side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

from conformance.models import model_order
from conformance.results.cases import results_files
from conformance.results.evaluations import Accuracies, read_all
from conformance.tables import release

Data = dict[str, Any]
FOLDER = "imagenet"
# More images than this in a list nobody reads; the results file has all of them.
MOST_DISAGREEMENTS = 50


def read_accuracies(files: Iterable[Path]) -> list[Accuracies]:
    """Return the evaluations in `files`, by model and version."""
    return sorted(read_all(files), key=_order)


def _order(found: Accuracies) -> tuple[Any, ...]:
    return model_order(found.header["model"]), release(found.header["opencv"])


def divided(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of verdicts and those of evaluations among files and folders of results.

    Evaluations lie in imagenet/ beside the verdicts, and are found there for files, too, as a
    shell makes them of results/*.jsonl. Raises ConformanceError for a folder without any.
    """
    verdicts: list[Path] = []
    evaluations: dict[Path, Path] = {}
    for path in paths:
        folder = path if path.is_dir() else path.parent
        found = sorted(folder.glob(f"{FOLDER}/*.jsonl"))
        own = sorted(path.glob("*.jsonl")) if path.is_dir() and found else results_files([path])
        verdicts += [file for file in own if not _is_evaluation(file)]
        found += [file for file in own if _is_evaluation(file)]
        evaluations |= {file.resolve(): file for file in found}
    return verdicts, list(evaluations.values())


def _is_evaluation(path: Path) -> bool:
    """Return whether a file begins as one of an evaluation; one that can't be read does not."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(header, dict) and "preprocess" in header


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
