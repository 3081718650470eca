"""evaluation: memory and images a second of evaluate, beside a plain one and the machine's limit

The memory is that of the command `evaluate`, all its processes together.

The limit: decoding, the fastest TensorFlow and the fastest OpenCV, each alone on one core, spread
over all cores without any loss. The straightforward evaluator decodes, calls Keras eagerly and
OpenCV, one after the other, 50 images at once, each on all cores; its preprocessing is given to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Optional

import numpy as np

from conformance.candidate import RunConfig
from conformance.cli import BAD, OK
from conformance.cli.options import add_options
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError
from conformance.imagenet.command import find_model_pack
from conformance.imagenet.dataset import Dataset, Entry, read_dataset
from conformance.imagenet.decoder import decode_all, require_pillow
from conformance.imagenet.evaluation import make_job
from conformance.imagenet.runner import Shard
from conformance.imagenet.shards import Job, opencv_request, run_shard, tensorflow_request
from conformance.opencv.capability import probe_in_child
from conformance.processes.child import Child
from conformance.processes.machine import cores
from conformance.processes.server import (
    OPENCV,
    TENSORFLOW,
    FrameworkError,
    Server,
    close_servers,
    server,
)

from .memory import peak_of_tree

BATCH = 50
BATCHES = (1, BATCH)
_TIMEOUT = 600.0


@dataclass(frozen=True)
class Rates:
    """Images a second, and how they came about: ms an image of each part alone on one core."""

    ours: float
    straightforward: float
    limit: float
    alone: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `evaluation` takes."""
    parser.add_argument("model", nargs="?", default="mobilenet", metavar="MODEL")
    add_options(parser.add_argument, "--packs", "--weights")
    parser.add_argument("--imagenet-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--imagenet-labels", type=Path, metavar="FILE")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="default: 200")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")


def main(arguments: argparse.Namespace) -> int:
    """Print the three rates, the median of the rounds, and the memory."""
    require_pillow()
    for name in ("images", "rounds"):
        if getattr(arguments, name) < 1:
            raise ConformanceError(f"--{name} {getattr(arguments, name)}: give 1 or more")
    pack = find_model_pack(arguments.model, arguments)
    dataset = read_dataset(arguments.imagenet_dir, arguments.imagenet_labels)
    entries = repeated(dataset, arguments.images)
    config = RunConfig(engine=probe_in_child()["engines"][-1], threads=1)
    job = make_job(pack, dataset.folder, "tutorial", config, batch=BATCH, timeout=_TIMEOUT)
    try:
        with servers_closed():
            rounds = [measure(job, entries, arguments.weights) for _ in range(arguments.rounds)]
    except FrameworkError as error:
        raise ConformanceError(f"{job.model}: {error.message}") from error
    _print(job, rounds)
    _print_memory(arguments, min(arguments.images, len(dataset.entries)))
    return OK


@contextmanager
def servers_closed() -> Iterator[None]:
    """End the frameworks' processes when the block ends, however it does."""
    try:
        yield
    finally:
        close_servers()


def repeated(dataset: Dataset, count: int) -> tuple[Entry, ...]:
    """Return `count` images, those of the data set again and again."""
    entries = dataset.entries
    return tuple(entries[index % len(entries)] for index in range(count))


def measure(job: Job, entries: tuple[Entry, ...], weights: str) -> Rates:
    """Return the rates of one round."""
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as name:
        scratch = Path(name)
        begin = time.perf_counter()
        pixels, _ = decode_all(
            Path(job.folder), [entry.name for entry in entries], job.size, job.recipe
        )
        alone = {"decode": time.perf_counter() - begin}
        np.save(scratch / "pixels.npy", pixels)
        for batch in BATCHES:
            reference = {**tensorflow_request(job), "batch": batch, "at_once": 1}
            asked = {f"tensorflow {batch}": (TENSORFLOW, reference)}
            candidate = opencv_request(replace(job, opencv_batch=batch))
            asked[f"opencv {batch}"] = (OPENCV, candidate)
            for part, (module, request) in asked.items():
                alone[part] = _seconds(module, request, scratch)
        everything = replace(job, threads=cores(), opencv_batch=BATCH, config=_on_all(job))
        eager = {**tensorflow_request(everything), "batch": BATCH, "at_once": 1}
        eager["weights"] = weights
        plain = alone["decode"] + _seconds(TENSORFLOW, eager, scratch)
        plain += _seconds(OPENCV, opencv_request(everything), scratch)
    fastest = [min(alone[f"{f} {b}"] for b in BATCHES) for f in ("tensorflow", "opencv")]
    count = len(entries)
    return Rates(
        ours=count / _ours(job, entries),
        straightforward=count / plain,
        limit=cores() * count / (alone["decode"] + sum(fastest)),
        alone={part: seconds / count * 1e3 for part, seconds in alone.items()},
    )


def _on_all(job: Job) -> RunConfig:
    return replace(job.config, threads=cores())


def _seconds(module: str, request: dict[str, object], scratch: Path) -> float:
    """Return the seconds of the inferences alone, in a process that has run before."""
    child = Server(module, request, _TIMEOUT)
    try:
        asked = {"pixels": str(scratch / "pixels.npy"), "outputs": str(scratch / "outputs.npy")}
        return float(child.ask(asked)["seconds"])
    finally:
        child.close()


def _ours(job: Job, entries: tuple[Entry, ...]) -> float:
    """Return the seconds of the evaluation, the frameworks' processes already started."""
    begins = range(0, len(entries), BATCH)
    shards: list[Shard] = [(i, entries[begin : begin + BATCH]) for i, begin in enumerate(begins)]
    workers = cores()
    together = threading.Barrier(workers)

    def start(_: int) -> None:
        server(OPENCV, opencv_request(job), job.timeout)
        server(TENSORFLOW, tensorflow_request(job), job.timeout)
        together.wait(_TIMEOUT)

    with ThreadPoolExecutor(workers) as pool, servers_closed():
        list(pool.map(start, range(workers)))
        begin = time.perf_counter()
        list(pool.map(lambda shard: run_shard(job, *shard), shards))
        return time.perf_counter() - begin


def peak_of_evaluation(arguments: argparse.Namespace, images: int, workers: str) -> int:
    """Return the most bytes that `evaluate` and its processes had together (see memory.py).

    workers: "--jobs" or "--workers", of which there is one a core.
    """
    command = [sys.executable, "-m", "conformance", "evaluate", arguments.model]
    command += ["--packs", str(arguments.packs), "--weights", arguments.weights]
    command += ["--imagenet-dir", str(arguments.imagenet_dir), "--subset", str(images)]
    if arguments.imagenet_labels:
        command += ["--imagenet-labels", str(arguments.imagenet_labels)]
    with tempfile.TemporaryDirectory(prefix="opencv-conformance-") as results:
        command += ["--results", results, workers, str(cores())]
        with closing(Child(command)) as child, peak_of_tree(child.process.pid) as peak:
            ending = child.ending()
    if ending.code not in (OK, BAD):  # BAD: it went to its end, and the frameworks disagree
        raise ConformanceError(f"evaluate {arguments.model} {workers}: its process {ending}")
    return peak.bytes


def _print_memory(arguments: argparse.Namespace, images: int) -> None:
    rows = []
    for workers in ("--jobs", "--workers"):
        gib = peak_of_evaluation(arguments, images, workers) / 2**30
        rows.append((f"evaluate {workers} {cores()}", f"{gib:.2f}", f"{gib / cores():.2f}"))
    title = f"Memory of all processes together, {images} images, PSS at most"
    print_table(title, ("what", ">GiB", ">GiB a core"), rows)


def _print(job: Job, rounds: list[Rates]) -> None:
    ours, plain, limit = (
        median(getattr(one, name) for one in rounds)
        for name in ("ours", "straightforward", "limit")
    )
    rows = [
        ("this evaluation", f"{ours:.1f}", _share(rounds, "ours", None)),
        ("straightforward evaluator", f"{plain:.1f}", _share(rounds, "ours", "straightforward")),
        ("the machine's limit", f"{limit:.1f}", _share(rounds, "ours", "limit")),
    ]
    title = f"{job.model}, both frameworks, {cores()} cores, median of {len(rounds)} rounds"
    print_table(title, ("what", ">images/s", ">this evaluation is"), rows)
    parts = [(part, f"{median(one.alone[part] for one in rounds):.2f}") for part in rounds[0].alone]
    print_table("Each alone on one core, by images at once", ("what", ">ms an image"), parts)


def _share(rounds: list[Rates], of: str, to: Optional[str]) -> str:
    if to is None:
        return ""
    return f"{median(getattr(one, of) / getattr(one, to) for one in rounds):.2f} x"
