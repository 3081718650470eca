"""A complete pack of small arrays, written by the real writer in milliseconds, without TensorFlow.

Run as a script it is a builder of a pool: ``python -m conformance.selftest.tiny_pack ROOT LOG
SECONDS`` builds tiny packs of the models that it reads, each taking SECONDS, and notes every build
in LOG.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional
from unittest import mock

import numpy as np

from conformance.pack.format import (
    ARRAYS,
    GRAPH,
    LAYERS,
    PREPROCESSING,
    Manifest,
    Pack,
    new_manifest,
)
from conformance.pack.request import PackRequest
from conformance.pack.sampling import node_seed, sampled_values
from conformance.pack.schedule import Turn
from conformance.pack.store import write_pack
from conformance.processes.progress import Event, reporter

PRODUCER = {"tensorflow": "2.0", "keras": "3.0", "numpy": "2.0", "recipe": "tiny"}
INPUTS = 8
CLASSES = 5
LAYER_SHAPE = [INPUTS, 4, 4, 3]
MODELS = ("mobilenet", "resnet50", "xception")
REQUESTS = [PackRequest(model) for model in MODELS]


def tiny_manifest(model: str = "mobilenet", **changes: Any) -> Manifest:
    """Return a manifest with one layer; `changes` set fields of it, or "request"."""
    request = changes.pop("request", PackRequest(model))
    tensors = {"input": "x", "logits": "logits", "output": "probabilities"}
    manifest = new_manifest(request, PRODUCER, tensors, [f"input{i}" for i in range(INPUTS)])
    manifest.layers = [{"node": "conv1", "op": "Conv2D", "inputs": ["x"], "shape": LAYER_SHAPE}]
    for name, value in changes.items():
        setattr(manifest, name, value)
    return manifest


def fill_tiny(folder: Path) -> None:
    """Write all the files of a pack, none above a few KiB."""
    random = np.random.RandomState(0)
    (folder / GRAPH).write_bytes(random.bytes(2000))
    for name in ARRAYS:
        shape = (INPUTS, 4, 4, 3) if name.startswith("inputs") else (INPUTS, CLASSES)
        dtype = np.float64 if "f64" in name else np.float32
        np.save(folder / name, random.random_sample(shape).astype(dtype))
    activation = sampled_values(random.random_sample(LAYER_SHAPE), node_seed("conv1"))
    arrays: dict[str, Any] = {"0_f32": activation.astype(np.float32), "0_f64": activation}
    np.savez(folder / LAYERS, **arrays)
    image = random.randint(0, 256, (2, 37, 53, 3)).astype(np.uint8)
    np.savez(folder / PREPROCESSING, image=image, keras=image / np.float32(127.5) - 1)


def write_tiny(root: Path, model: str = "mobilenet", **changes: Any) -> Pack:
    """Write a tiny pack under `root` and return it."""
    return write_pack(root, tiny_manifest(model, **changes), fill_tiny)


def build_tiny(request: PackRequest, root: Path, step: Callable[[str], None]) -> Pack:
    """Build the tiny pack that answers `request`; a stand-in for build_pack of the reference."""
    step("filling")
    return write_tiny(root, request.model, request=request)


def final_states(events: list[Event]) -> dict[str, str]:
    """Return the last word on each model, after checking that there is one only."""
    final = [event for event in events if event.final]
    assert len({event.model for event in final}) == len(final)
    return {event.model: event.state for event in final}


def tiny_builder(
    root: Path, seconds: float = 0.0, until: Optional[Path] = None
) -> Callable[..., list[str]]:
    """Return what gives the command of a builder that makes tiny packs and notes them in a log.

    seconds: that it takes for each. until: a file that it waits for besides.
    """
    script = [sys.executable, "-m", "conformance.selftest.tiny_pack"]
    given = [str(root), str(root.parent / "log"), str(seconds), str(until or root.parent)]
    return lambda *_: [*script, *given]


def main(root: str, log: str, seconds: str, until: str) -> None:
    """Be a builder process, reporting in JSON, where the tiny packs' producer is installed."""
    mock.patch("conformance.pack.request.producer_versions", return_value=PRODUCER).start()

    def build(request: PackRequest, folder: Path, step: Callable[[str], None]) -> Pack:
        with open(log, "a", encoding="utf-8") as notes:
            print(request.model, file=notes)
        time.sleep(float(seconds))
        while not Path(until).exists():
            time.sleep(0.05)
        return build_tiny(request, folder, step)

    with reporter("json", 0) as report:
        for line in sys.stdin:
            Turn(PackRequest(line.strip()), Path(root), build, report).attempt()


if __name__ == "__main__":
    main(*sys.argv[1:])
