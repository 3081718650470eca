"""An evaluation on disk: ``imagenet/<model>-<opencv>.jsonl`` and the log that the tutorial writes.

JSON Lines: a header, a summary, a line for each bad image and each disagreement, and a footer with
the digest of all before it. The schema is imagenet.schema.json.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from conformance import __version__
from conformance.pack.format import read_manifest
from conformance.processes.machine import cpu_name
from conformance.results.cases import json_number, now
from conformance.results.evaluations import SCHEMA, Line, _validate
from conformance.tables import release

from .decoder import RECIPES
from .evaluation import Evaluation, Plan
from .shards import disk_error, write_whole


def results_name(plan: Plan) -> str:
    """Return the name of a plan's results without suffix, such as "mobilenet-5.0.0".

    Of OpenCV 5's classic engine, which it does not take by itself, "mobilenet-5.0.0-classic".
    """
    engine = plan.job.config.engine
    second = engine == "classic" and release(plan.opencv) >= release("5")
    return f"{plan.job.model}-{plan.opencv}" + (f"-{engine}" if second else "")


def write_results(folder: Path, found: Evaluation) -> Path:
    """Write the results and the log into `folder` and return the path of the results.

    Raises ConformanceError where the disk does not take them.
    """
    path = folder / f"{results_name(found.plan)}.jsonl"
    log = folder / f"TF_{found.plan.job.model}_log.txt"
    text, told = _text(found), log_text(found)
    try:
        write_whole(path, lambda file: file.write_bytes(text.encode()))
        write_whole(log, lambda file: file.write_bytes(told.encode()))
    except OSError as error:
        raise disk_error(folder, error) from error
    return path


def _text(found: Evaluation) -> str:
    lines: list[Line] = [header(found.plan), {"kind": "summary", **found.summary}]
    lines += [{"kind": "bad", **one} for one in found.bad]
    lines += [{"kind": "disagreement", **one} for one in found.disagreements]
    lines = [_validate()(_finite(line)) for line in lines]
    body = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    digest = hashlib.sha256(body.encode()).hexdigest()
    footer = {"kind": "footer", "finished": now(), "digest": digest}
    return body + json.dumps(footer, sort_keys=True) + "\n"


def _finite(value: Any) -> Any:
    """Return `value` as JSON can hold it, however deep a number is that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return json_number(value) if isinstance(value, float) else value


def header(plan: Plan) -> Line:
    """Return the header: all that must be known to compare two accuracies."""
    job, producer = plan.job, read_manifest(Path(plan.job.pack)).producer
    return {
        "kind": "header",
        "schema": SCHEMA,
        "created": now(),
        "conformance": __version__,
        "model": job.model,
        "opencv": plan.opencv,
        "engine": job.config.engine,
        "tensorflow": producer["tensorflow"],
        "keras": producer["keras"],
        "weights": plan.weights,
        "pack": job.digest,
        "preprocess": job.recipe,
        "recipe": RECIPES[job.recipe].text,
        "size": job.size,
        "batch": job.batch,
        "opencv_batch": job.opencv_batch,
        "threads": job.threads,
        "dataset": plan.dataset.digest(),
        "cpu": cpu_name(),
        "max_bad": plan.max_bad,
    }


def log_text(found: Evaluation) -> str:
    """Return the log: the run's parameters, then each framework's accuracy and time."""
    job, summary = found.plan.job, found.summary
    parameters: dict[str, object] = {
        "model": job.model,
        "weights": found.plan.weights,
        "images": f"{summary['images']} ({summary['bad']} bad) in {job.folder}",
        "frame size": job.size,
        "preprocessing": f"{job.recipe}: {RECIPES[job.recipe].text}; mode {job.mode}",
        "batch size": f"{job.batch} (OpenCV: {job.opencv_batch})",
        "threads": job.threads,
        "OpenCV": f"{found.plan.opencv}, {job.config.engine} engine",
    }
    lines = [f"{name}: {value}" for name, value in parameters.items()]
    for name, told in (("tensorflow", "TensorFlow"), ("opencv", "OpenCV")):
        of = summary[name]
        lines.append(
            f"{told}: top-1 {of['top1']['value']:.3%}, top-5 {of['top5']['value']:.3%}, "
            f"{of['ms_an_image']:.3f} ms an image"
        )
    lines.append(f"L1: mean {summary['l1_mean']:.3e}, max {summary['l1_max']:.3e}")
    lines.append(f"LInf: mean {summary['linf_mean']:.3e}, max {summary['linf_max']:.3e}")
    return "\n".join(lines) + "\n"
