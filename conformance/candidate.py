"""What goes into a run of the candidate and what comes out of it. Imports no cv2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .pack.sampling import SAMPLED
from .processes.opencl import opencl_environment

Array = np.ndarray[Any, Any]

# Second forwards on the same net: the first REPEATS inputs. One forward of the first BATCH inputs
# at once. Both few, as they are run for 15 models; a defect of either shows on any input.
REPEATS = 1
BATCH = 2

_CPU_DISABLE = "OPENCV_CPU_DISABLE"

# The order of a run. "forward" includes the allocation OpenCV does on the first call, so that a
# crash in it counts as "forward"; an error OpenCV names as one of set-up counts as "setup".
STAGES = ("start", "parse", "setup", "forward", "batch", "logits", "layers")
DOING = {
    "start": "import cv2 for",
    "parse": "parse",
    "setup": "set up",
    "forward": "run",
    "batch": "run a batch through",
    "logits": "read the logits of",
    "layers": "read the layers of",
}


@dataclass(frozen=True)
class RunConfig:
    """How the candidate is run; None leaves a switch as the user gets it.

    importer: one of pack/formats.py. engine: "classic", or "new" (OpenCV 5). backend,
    target: the ends of OpenCV's constants in lower case, such as "opencv" for DNN_BACKEND_OPENCV
    and "cpu_fp16" for DNN_TARGET_CPU_FP16. cpu: the CPU level, cpu_off: the features that it goes
    without (opencv/levels.py). layers: read every layer too. cut: read these nodes instead, each by
    itself, so that what stands before it is fused as the user has it.
    """

    importer: str = "tensorflow"
    engine: str = "classic"
    backend: str = "default"
    target: str = "cpu"
    cpu: str = ""
    cpu_off: tuple[str, ...] = ()
    winograd: Optional[bool] = None
    fusion: Optional[bool] = None
    threads: Optional[int] = None
    layers: bool = False
    cut: Optional[tuple[str, ...]] = None

    @property
    def variant(self) -> str:
        """Importer, engine, target and CPU level, without those that are the usual ones.

        Such as "classic", "tflite-classic" or "classic-opencl".
        """
        importer = "" if self.importer == "tensorflow" else self.importer
        return "-".join(filter(None, (importer, self.place)))

    @property
    def place(self) -> str:
        """The same without the importer: where the network is run."""
        target = "" if self.target == "cpu" else self.target
        return "-".join(filter(None, (self.engine, target, self.cpu)))

    @property
    def is_usual(self) -> bool:
        """Whether target and CPU level are what one gets without asking."""
        return self.place == self.engine

    @property
    def title(self) -> str:
        """The same for people: "classic engine", "tflite importer, classic engine"."""
        importer = "" if self.importer == "tensorflow" else f"{self.importer} importer"
        target = "" if self.target == "cpu" else f"target {self.target}"
        cpu = f"CPU {self.cpu.replace('_', ' ')}" if self.cpu else ""
        return ", ".join(filter(None, (importer, f"{self.engine} engine", target, cpu)))

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process needs in which OpenCV is run so."""
        variables = opencl_environment() if self.on_opencl else {}
        if self.cpu_off:
            # What the user switched off stays so.
            before = os.environ.get(_CPU_DISABLE, "").split(",")
            off = dict.fromkeys(filter(None, (*before, *self.cpu_off)))
            variables[_CPU_DISABLE] = ",".join(off)
        return variables

    @property
    def on_opencl(self) -> bool:
        """Whether an OpenCL device is to run it."""
        return self.target.startswith("opencl")

    @property
    def switches(self) -> str:
        """The switches that are set, such as "winograd_off", joined by "-"; else empty."""
        states = (("winograd", self.winograd), ("fusion", self.fusion))
        return "-".join(f"{name}_{'on' if on else 'off'}" for name, on in states if on is not None)


@dataclass(frozen=True)
class Failure:
    """Why a stage of a run gave nothing.

    stage: one of STAGES. kind: "error" (OpenCV or Python said so), "crash" (a signal), "killed"
    (SIGKILL, most often the kernel's out-of-memory killer) or "timeout". message: the whole
    story, naming stage, model, node, OpenCV version and engine. node: of the graph, where OpenCV
    named one. signal: such as "SIGSEGV".
    """

    stage: str
    kind: str
    message: str
    node: Optional[str] = None
    signal: Optional[str] = None

    def __str__(self) -> str:
        return self.message


@dataclass
class CandidateRun:
    """What OpenCV gave for one pack; an array is None when its stage, or one before, failed.

    version: of OpenCV, None if cv2 could not be imported. outputs: [N, C], one plain forward an
    image, shape and dtype as OpenCV gave them. repeat: [REPEATS, C], a second forward of the first
    inputs on the same net. batch: raw output of one forward of the first BATCH inputs on the same
    net. logits: [M, C], of the inputs SAMPLED (sampling.py), read after all else. layer_samples:
    {node: float32 [S + 2 N]}, sampled as in the pack, from another net. carriers: {OpenCV layer:
    graph node it is compared with}. layers_absent: {node: why there is nothing to compare}.
    layers_wrong: {node: how its shape is wrong}. tapped: [M, C], the outputs of the inputs SAMPLED
    while layers were read, without fusion and, unless it was switched on, without Winograd.
    times_ms: [N], of ``forward`` alone; the first includes set-up. kernels: that an OpenCL device
    was given for the first input, None of other targets. peak_mib: peak memory of the child
    process. threads: OpenCV's thread count. failures: in the order they happened. notes: what is
    worth telling though it fails nothing. log: what the child printed. further: of each further
    output of the model outputs, repeat, batch, logits and tapped.
    """

    config: RunConfig
    version: Optional[str] = None
    outputs: Optional[Array] = None
    repeat: Optional[Array] = None
    batch: Optional[Array] = None
    logits: Optional[Array] = None
    layer_samples: dict[str, Array] = field(default_factory=dict)
    carriers: dict[str, str] = field(default_factory=dict)
    layers_absent: dict[str, str] = field(default_factory=dict)
    layers_wrong: dict[str, str] = field(default_factory=dict)
    tapped: Optional[Array] = None
    times_ms: Optional[Array] = None
    kernels: Optional[int] = None
    peak_mib: Optional[float] = None
    threads: Optional[int] = None
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    log: str = ""
    further: list[dict[str, Optional[Array]]] = field(default_factory=list)

    def of_head(self, number: int, shape: Optional[Sequence[int]] = None) -> CandidateRun:
        """Return the run as the model's output `number` sees it, outputs as rows [N, C].

        shape: of one image's output, NHWC, where it is no row of classes.
        """
        if number == 0 and shape is None:
            return self
        values: dict[str, Any] = dict(self.further[number - 1]) if number else vars(self)
        names = ("outputs", "repeat", "batch", "tapped")
        rows: dict[str, Any] = {name: _rows(values[name], shape) for name in names}
        outputs, logits = rows["outputs"], values["logits"]
        if logits is None and outputs is not None:
            logits = outputs[SAMPLED]  # of plain values, which nothing squeezes
        return replace(self, logits=logits, **rows)

    @property
    def tap_shift(self) -> Optional[float]:
        """Greatest |difference| that reading layers made to the outputs, or None."""
        if self.outputs is None or self.tapped is None:
            return None
        plain = self.outputs[SAMPLED]
        return (
            float(np.abs(plain - self.tapped).max()) if plain.shape == self.tapped.shape else None
        )

    @cached_property
    def layer_of(self) -> dict[str, str]:
        """The OpenCV layer that holds each graph node: `carriers` the other way round."""
        return {node: layer for layer, node in self.carriers.items()}

    @property
    def failure(self) -> Optional[Failure]:
        """The first failure, or None."""
        return self.failures[0] if self.failures else None

    def failure_before(self, stage: str) -> Optional[Failure]:
        """Return the failure that kept `stage` from giving its arrays, or None.

        "batch" and "logits" go on after an error in each other's stage, and what comes after the
        batch is run again without it after a crash; but nothing goes on after another crash or
        after a failed parse, set-up or forward.
        """
        for failure in self.failures:
            crashed = failure.kind != "error" and failure.stage != "batch"
            fatal = crashed or failure.stage in STAGES[:4]
            earlier = STAGES.index(failure.stage) <= STAGES.index(stage)
            # The new engine's logits are read with the layers, so that a crash there takes both.
            both = stage == "logits" and self.logits is None and failure.stage == "layers"
            if failure.stage == stage or (fatal and earlier) or both:
                return failure
        return None


def read_arrays(file: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file that a child writes, none where it did not come to it."""
    if not file.exists():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _rows(output: Optional[Array], shape: Optional[Sequence[int]]) -> Optional[Array]:
    """Return OpenCV's output [N, C, H, W] as rows in the order of `shape`, NHWC; else as it is."""
    if output is None or shape is None:
        return output
    if len(shape) == 3 and output.shape[1:] == (shape[2], shape[0], shape[1]):
        return output.transpose(0, 2, 3, 1).reshape(len(output), -1)
    return output.reshape(len(output), -1) if output.shape[1:] == tuple(shape) else output
