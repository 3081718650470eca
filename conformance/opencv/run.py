"""The parent's side: run the candidate on a pack in a process of its own. Imports no cv2."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import DOING, Array, CandidateRun, Failure, RunConfig, read_arrays
from conformance.errors import ConformanceError
from conformance.pack.conversion import Conversion, file_of, takes_batches
from conformance.pack.format import Pack
from conformance.pack.heads import by_scale
from conformance.processes.child import (
    HERE,
    REUSED_HEAP,
    Ending,
    Interpreter,
    child_environment,
    last_lines,
    run_child,
)
from conformance.processes.scratch import Scratch

from .layers import TAP_BYTES, image_bytes

CHILD = "conformance.opencv.child"
_LEAST_ROOM = 1 << 16
# What the child has of each of the model's outputs.
_OF_HEADS = ("outputs", "repeat", "batch")


def run_candidate(
    pack: Pack,
    config: Optional[RunConfig] = None,
    timeout: float = 300,
    conversion: Optional[Conversion] = None,
    interpreter: Interpreter = HERE,
) -> CandidateRun:
    """Run OpenCV on all inputs of `pack` in a child process and return what it gave.

    timeout in seconds for the whole run. conversion: the pack's file for the importer, from a
    caller that has checked it. interpreter: whose OpenCV it is. Whatever the candidate does, from
    an error to a crash or a hang, comes back as ``failures`` of the result, with the arrays of the
    stages before it; of a batch's crash or hang also with those after it, from a second run without
    the batch.
    Raises ConformanceError when the request cannot be made (temporary folder not writable; the
    importer reads a conversion that the pack has not).
    """
    config = config or RunConfig()
    run = partial(_run, pack, config, timeout, conversion, interpreter)
    result = run(pack.takes_batches)
    lost = [f for f in result.failures if f.stage == "batch" and f.kind != "error"]
    if lost:
        # ONNX files on OpenCV 5.0's classic engine: their batch crashes in some runs only.
        result = run(batches=False)
        result.failures = [*lost, *result.failures]
    return result


def running_bytes(pack: Pack, config: RunConfig, conversion: Optional[Conversion] = None) -> int:
    """Return about how much memory, in bytes, `run_candidate` takes: 0 to 15 % more than measured.

    Of the 15 models: OpenCV 5.0.0 holds a file in about 3.5 copies, when it reads it, and layers in
    2.25, when it hands them out.
    """
    path, _ = file_of(pack, config.importer, conversion)
    activations = sum(map(image_bytes, pack.manifest.layers)) if config.layers else 0
    return (100 << 20) + path.stat().st_size * 7 // 2 + min(activations, TAP_BYTES) * 9 // 4


def _run(
    pack: Pack,
    config: RunConfig,
    timeout: float,
    conversion: Optional[Conversion],
    interpreter: Interpreter,
    batches: bool,
) -> CandidateRun:
    try:
        with Scratch() as name:
            folder = Path(name)
            request = folder / "request.json"
            asked = _request(pack, config, folder, conversion, batches)
            request.write_text(json.dumps(asked), "utf-8")
            command = [interpreter.python, "-m", CHILD, str(request)]
            environment = child_environment(interpreter.code, **REUSED_HEAP, **config.environment)
            ending = run_child(command, timeout, environment)
            result = _collect(folder, pack, config, ending)
            if result.failures and _is_full(folder, ending, result):
                # The child could not write what OpenCV answered: that is no fault of OpenCV's.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return result
    except OSError as error:
        raise ConformanceError(
            f"cannot run OpenCV on {pack.model}: {error}. The temporary folder "
            f"{tempfile.gettempdir()} must be writable (TMPDIR chooses another)"
        ) from error


def _is_full(folder: Path, ending: Ending, result: CandidateRun) -> bool:
    said = [ending.log, *(failure.message for failure in result.failures)]
    told = any(os.strerror(errno.ENOSPC) in text for text in said)
    # A disk that takes nothing more takes no log either.
    return told or shutil.disk_usage(folder).free < _LEAST_ROOM


def _request(
    pack: Pack, config: RunConfig, folder: Path, conversion: Optional[Conversion], batches: bool
) -> dict[str, Any]:
    path, tensors = file_of(pack, config.importer, conversion)
    own = pack.manifest.importer
    return {
        "model": pack.model,
        "graph": str(path.resolve()),
        "converted": tensors,
        "inputs": str((pack.path / "inputs.npy").resolve()),
        "heads": _heads(pack),
        "batches": batches and (config.importer == own or takes_batches(config.importer)),
        "layout": pack.manifest.input_layout if config.importer == own else "NCHW",
        "layers": pack.manifest.layers,
        "tap_bytes": TAP_BYTES,
        "config": asdict(config),
        "folder": str(folder),
    }


def _heads(pack: Pack) -> list[dict[str, str]]:
    """Return "output" and "logits" of each head; no logits where they are the output itself."""
    heads = pack.manifest.heads or [pack.manifest.tensors]
    return [
        {"output": h["output"], "logits": "" if h["logits"] == h["output"] else h["logits"]}
        for h in heads
    ]


def _collect(folder: Path, pack: Pack, config: RunConfig, ending: Ending) -> CandidateRun:
    report = _report(folder)
    forward, layers, batch, logits = (
        _as_floats(pack, read_arrays(folder / f"{stage}.npz"))
        for stage in ("forward", "layers", "batch", "logits")
    )
    names = (
        *("version", "carriers", "layers_absent", "layers_wrong", "kernels", "notes"),
        *("peak_mib", "threads"),
    )
    result = CandidateRun(
        config=config,
        outputs=forward.get("outputs"),
        repeat=forward.get("repeat"),
        times_ms=forward.get("times_ms"),
        batch=batch.get("batch"),
        logits=logits.get("logits"),
        further=[
            {
                "outputs": forward.get(f"outputs_{number}"),
                "repeat": forward.get(f"repeat_{number}"),
                "batch": batch.get(f"batch_{number}"),
                "logits": logits.get(f"logits_{number}"),
                "tapped": layers.get(f"outputs_{number}"),
            }
            for number in range(1, len(pack.heads()))
        ],
        layer_samples=_samples(layers, report.get("sampled", [])),
        tapped=layers.get("outputs"),
        log=ending.log,
        **{name: report[name] for name in names if name in report},
    )
    result.failures = [
        Failure(**{**failure, "message": failure["message"] + last_lines(ending.log)})
        for failure in report.get("failures", [])
    ]
    if ending.code != 0:
        result.failures.append(_unnatural_end(folder, pack.model, result, ending))
    return result


def _samples(layers: dict[str, Array], nodes: Sequence[str]) -> dict[str, Array]:
    if not layers:
        return {}
    return dict(zip(nodes, np.split(layers["samples"], layers["ends"][:-1])))


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    if not path.exists():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _as_floats(pack: Pack, arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays, outputs in whole numbers by their scale."""
    for number, head in enumerate(pack.manifest.heads):
        for name in _OF_HEADS if head.get("step") else ():
            key = f"{name}_{number}" if number else name
            if key in arrays:
                arrays[key] = by_scale(arrays[key], head["step"], head["zero"])
    return arrays


def _unnatural_end(folder: Path, model: str, result: CandidateRun, ending: Ending) -> Failure:
    journal = folder / "journal"
    stages = journal.read_text(encoding="utf-8").split() if journal.exists() else []
    stage = stages[-1] if stages else "start"
    first = ", in the first forward or after it" if stage == "forward" else ""
    message = (
        f"OpenCV {result.version or '(version unknown)'} ({result.config.title}) could "
        f"not {DOING[stage]} {model}: its process {ending.how}{first}.{last_lines(ending.log)}"
    )
    return Failure(stage, _kind(ending), message, signal=ending.signal)


def _kind(ending: Ending) -> str:
    if ending.code is None:
        return "timeout"
    if ending.signal is None:
        return "error"
    return "killed" if ending.signal == "SIGKILL" else "crash"
