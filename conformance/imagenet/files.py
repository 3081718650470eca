"""An evaluation on disk: ``imagenet/<model>-<opencv>.jsonl`` and the log that the tutorial writes.

The file has a header, a summary, and a line for each bad image and each disagreement.
"""

from __future__ import annotations

from pathlib import Path

from conformance import __version__
from conformance.pack.format import read_manifest
from conformance.pack.sealed import whole_file, write_text
from conformance.processes.machine import cpu_name
from conformance.results.lines import EVALUATIONS, Line, writing_lines
from conformance.tables import release
from conformance.verdict.judgement import json_number

from .decoder import RECIPES
from .evaluation import Evaluation, Plan
from .shards import disk_errors


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
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file, writing_lines(file, EVALUATIONS, header(found.plan)) as out:
            for line in _lines(found):
                out.write(line)
        write_text(log, log_text(found))
    return path


def _lines(found: Evaluation) -> list[Line]:
    lines: list[Line] = [{"kind": "summary", **found.summary}]
    lines += [{"kind": "bad", **one} for one in found.bad]
    lines += [{"kind": "disagreement", **one} for one in found.disagreements]
    return [json_number(line) for line in lines]


def header(plan: Plan) -> Line:
    """Return the header: all that must be known to compare two accuracies."""
    job, producer = plan.job, read_manifest(Path(plan.job.pack)).producer
    return {
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
        "OpenCV": f"{found.plan.opencv}, {job.config.title}",
    }
    lines = [f"{name}: {value}" for name, value in parameters.items()]
    for name, title in (("tensorflow", "TensorFlow"), ("opencv", "OpenCV")):
        of = summary[name]
        lines.append(
            f"{title}: top-1 {of['top1']['value']:.3%}, top-5 {of['top5']['value']:.3%}, "
            f"{of['ms_an_image']:.3f} ms an image"
        )
    lines.append(f"L1: mean {summary['l1_mean']:.3e}, max {summary['l1_max']:.3e}")
    lines.append(f"LInf: mean {summary['linf_mean']:.3e}, max {summary['linf_max']:.3e}")
    return "\n".join(lines) + "\n"
