"""An evaluation on disk: ``imagenet/<model>-<opencv>.jsonl`` and the log that the tutorial writes.

JSON Lines: a header, a summary, a line for each bad image and each disagreement, and a footer with
the digest of all before it. The schema is imagenet.schema.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

import fastjsonschema

from conformance import __version__
from conformance.errors import ConformanceError
from conformance.pack.format import read_manifest
from conformance.processes.machine import cpu_name
from conformance.reporting.results import json_number, now
from conformance.tables import release

from .decoding import RECIPES
from .evaluation import Evaluation, Plan
from .shards import disk_error, write_whole

SCHEMA = 1
Line = dict[str, Any]


@dataclass(frozen=True)
class Accuracies:
    """A complete results file: its header and summary, bad images and disagreements."""

    path: Path
    header: Line
    summary: Line
    bad: list[Line]
    disagreements: list[Line]


@lru_cache(maxsize=1)
def _validate() -> Callable[[Line], Line]:
    schema = Path(__file__).with_name("imagenet.schema.json").read_text(encoding="utf-8")
    compiled: Callable[[Line], Line] = fastjsonschema.compile(json.loads(schema))
    return compiled


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
        "recipe": RECIPES[job.recipe].told,
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
        "preprocessing": f"{job.recipe}: {RECIPES[job.recipe].told}; mode {job.mode}",
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


def read_results(path: Path) -> Accuracies:
    """Return the results in `path`.

    Raises ConformanceError naming the line: not JSON, not of the schema, edited, incomplete.
    """
    try:
        raw = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConformanceError(f"{path}: can't be read ({error.strerror})") from error
    lines = [_parse(path, number, text) for number, text in enumerate(raw, 1)]
    kinds = [line["kind"] for line in lines]
    if kinds[:2] != ["header", "summary"] or kinds[-1] != "footer":
        raise ConformanceError(f"{path}: no complete results of an evaluation; run it again")
    if hashlib.sha256(b"".join(raw[:-1])).hexdigest() != lines[-1]["digest"]:
        raise ConformanceError(f"{path}: differs from the digest in its footer; run it again")
    bad, apart = ([x for x in lines if x["kind"] == kind] for kind in ("bad", "disagreement"))
    return Accuracies(path, lines[0], lines[1], bad, apart)


def _parse(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text)
        if isinstance(line, dict) and line.get("schema", SCHEMA) > SCHEMA:
            raise ValueError(f"schema {line['schema']}; upgrade opencv-dnn-conformance")
        return _validate()(line)
    except (ValueError, TypeError, fastjsonschema.JsonSchemaValueException) as error:
        raise ConformanceError(
            f"{path}:{number}: not a line of an evaluation's results ({error})"
        ) from error


def read_all(paths: Iterable[Path]) -> list[Accuracies]:
    """Return the results in the files, by model and OpenCV version as the files are named."""
    return [read_results(path) for path in sorted(paths)]
