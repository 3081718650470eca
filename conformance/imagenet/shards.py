"""One shard of the evaluation: decode, TensorFlow, OpenCV, compare. Any process can do it.

Decoded pixels and TensorFlow's outputs may be kept in a cache, for other OpenCV versions. A file
there is named by the digest of what it was made of, so that it can't be taken for another.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.pack.conversion import file_for
from conformance.pack.request import keras_flavour, producer_versions
from conformance.pack.sealed import file_digest, json_digest, means_full, whole_file, write_text
from conformance.processes.machine import cores
from conformance.processes.scratch import Scratch
from conformance.processes.server import OPENCV, TENSORFLOW, FrameworkError, server
from conformance.verdict.metrics import apart, top_k

from .dataset import Entry
from .decoder import Bad, decode_all
from .options import TENSORFLOW_AT_ONCE

Array = np.ndarray[Any, Any]
TOP = 5


@dataclass(frozen=True)
class Job:
    """What all shards of one evaluation have in common; paths as the workers see them."""

    model: str
    pack: str  # its folder
    digest: str  # of the pack
    folder: str  # of the images
    size: int  # of the model's input, as mode
    mode: str
    classes: int  # of its output
    recipe: str
    config: RunConfig
    batch: int = 50  # images, of which a shard has a few; TensorFlow runs it in parts
    opencv_batch: int = 1
    threads: int = 1  # of each framework
    timeout: float = 600.0  # seconds for a shard
    cache: Optional[str] = None  # its folder
    opencv: Optional[str] = None  # the version that a worker must have, None for any


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard. bad: images that can't be used, with their place in the shard.

    arrays, a row for each good image: label; opencv_top, tensorflow_top [N, 5] classes, best
    first; opencv_p, tensorflow_p [N, 2], the two highest probabilities; l1, linf between both.
    seconds: of each framework's inferences; TensorFlow's are those of when they were computed.
    """

    index: int
    arrays: dict[str, Array]
    bad: list[Bad]
    seconds: dict[str, float]


def run_shard(job: Job, index: int, entries: Sequence[Entry]) -> ShardResult:
    """Evaluate the images of one shard.

    Raises FrameworkError where a framework fails, ConformanceError where a disk is full, or the
    pack, the images or the OpenCV asked for are not on this machine.
    """
    _require_here(job)
    folder = job.cache or tempfile.gettempdir()
    with disk_errors(folder), Scratch() as name:
        return _run(job, index, entries, Path(name))


def _require_here(job: Job) -> None:
    for path in (job.pack, job.folder):
        if not Path(path).is_dir():
            raise ConformanceError(
                f"{path}: there is no such folder on the machine that runs the shard; packs and "
                f"images must have the same path on all workers"
            )


@contextmanager
def disk_errors(folder: object) -> Iterator[None]:
    """Turn an OSError into a ConformanceError that names `folder` and how to go on.

    So is a framework's error that says its process found no room: the framework is not to blame.
    """
    try:
        yield
    except (OSError, FrameworkError) as error:
        full = means_full(error)
        if isinstance(error, FrameworkError) and not full:
            raise
        reason = f"can't be read or written ({getattr(error, 'strerror', None) or error})"
        raise ConformanceError(
            f"{folder}: {'no space left' if full else reason}. Finished shards are "
            f"kept: free some space or choose another folder (--results, --imagenet-cache, "
            f"TMPDIR), then go on with --resume"
        ) from error


def _run(job: Job, index: int, entries: Sequence[Entry], scratch: Path) -> ShardResult:
    kept = Path(job.cache) if job.cache else scratch
    kept.mkdir(parents=True, exist_ok=True)
    pixels, bad = _pixels(job, entries, kept)
    gone = {one.index for one in bad}
    good = [entry for place, entry in enumerate(entries) if place not in gone]
    labels = np.array([entry.label for entry in good], np.int16)
    if not good:
        empty = np.empty((0, job.classes), np.float32)
        none = {"opencv": 0.0, "tensorflow": 0.0}
        return ShardResult(index, compared(labels, empty, empty), bad, none)
    what = f"shard {index}, which begins with {entries[0].name}"
    theirs, reference_seconds = _tensorflow(job, pixels, kept, what)
    outputs = scratch / "opencv.npy"
    child = server(OPENCV, opencv_request(job), job.timeout)
    answer = child.ask({"pixels": str(pixels), "outputs": str(outputs)}, what=what)
    _require_version(job, answer["version"])
    arrays = compared(labels, np.load(outputs, allow_pickle=False), theirs)
    seconds = {"opencv": answer["seconds"], "tensorflow": reference_seconds}
    return ShardResult(index, arrays, bad, seconds)


def _require_version(job: Job, found: str) -> None:
    """Raise ConformanceError where this machine would answer for another OpenCV."""
    if job.opencv not in (None, found):
        raise ConformanceError(
            f"the worker on {platform.node()} has OpenCV {found}, and {job.opencv} is to be "
            f"evaluated: install the same OpenCV on all workers"
        )


def opencv_request(job: Job) -> dict[str, Any]:
    """Return what starts OpenCV's process (conformance.opencv.evaluation)."""
    return {
        **{name: getattr(job, name) for name in ("model", "mode", "size", "classes")},
        "graph": str(file_for(Path(job.pack), job.config.importer)),
        "config": asdict(job.config),
        "batch": job.opencv_batch,
    }


def tensorflow_request(job: Job) -> dict[str, Any]:
    """Return what starts TensorFlow's process (conformance.reference.evaluation)."""
    names = ("pack", "mode", "size", "classes", "threads")
    batch = min(job.batch, TENSORFLOW_AT_ONCE)
    return {**{name: getattr(job, name) for name in names}, "batch": batch, "at_once": cores()}


def _pixels(job: Job, entries: Sequence[Entry], kept: Path) -> tuple[Path, list[Bad]]:
    """Return the file of the good images' pixels, and the bad images."""
    files = [[entry.name, entry.bytes] for entry in entries]
    key = json_digest([str(job.folder), files, job.size, job.recipe])[:32]
    path, notes = (kept / f"pixels-{key}{suffix}" for suffix in (".npy", ".json"))
    # The notes are written last: where they are, the pixels are whole.
    if not (path.exists() and notes.exists()):
        pixels, bad = decode_all(
            Path(job.folder), [entry.name for entry in entries], job.size, job.recipe
        )
        with whole_file(path, durable=job.cache is not None) as temporary:
            np.save(temporary, pixels)
        write_text(notes, json.dumps([asdict(one) for one in bad]))
    return path, [Bad(**one) for one in json.loads(notes.read_text(encoding="utf-8"))]


def _tensorflow(job: Job, pixels: Path, kept: Path, what: str) -> tuple[Array, float]:
    """Return TensorFlow's outputs [N, classes] for the pixels of `what`, and their seconds."""
    key = json_digest([file_digest(pixels), job.digest, job.batch, job.threads])[:32]
    path = kept / f"tensorflow-{key}.npz"
    if not path.exists():
        _require_tensorflow(job)
        child = server(TENSORFLOW, tensorflow_request(job), job.timeout)
        with Scratch() as name:
            outputs = Path(name, "outputs.npy")
            answer = child.ask({"pixels": str(pixels), "outputs": str(outputs)}, what=what)
            given, seconds = np.load(outputs, allow_pickle=False), answer["seconds"]
        with whole_file(path) as temporary:
            np.savez(temporary, outputs=given, seconds=seconds)
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays["outputs"]), float(arrays["seconds"])


def _require_tensorflow(job: Job) -> None:
    if producer_versions(keras_flavour()) is None:
        raise ConformanceError(
            f"TensorFlow is not installed, and {job.cache or 'there is no --imagenet-cache that'} "
            f"has its outputs for these images: evaluate {job.model} with --imagenet-cache DIR "
            f"where TensorFlow is installed, then here with the same options"
        )


def compared(labels: Array, opencv: Array, tensorflow: Array) -> dict[str, Array]:
    """Return a shard's arrays (see ShardResult) from both frameworks' outputs [N, classes]."""
    strayed = apart(opencv, tensorflow)
    arrays = {"label": labels, "l1": strayed.sum(axis=1), "linf": strayed.max(axis=1, initial=0)}
    for name, outputs in (("opencv", opencv), ("tensorflow", tensorflow)):
        top = top_k(outputs, TOP)
        arrays[f"{name}_top"] = top.astype(np.int16)
        arrays[f"{name}_p"] = np.take_along_axis(outputs, top[:, :2], axis=1)
    return arrays
