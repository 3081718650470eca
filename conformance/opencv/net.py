"""One network in OpenCV: parse, set up, forward, each a stage whose error says what is wrong where.

Works on every OpenCV from 4.5.1. Nothing here catches a crash: child.py is there for that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from conformance.candidate import DOING, Array, Failure, RunConfig

from .capability import available_targets, dnn_constants, engine_constants, engines
from .importers import IMPORTERS

# OpenCV goes on with the CPU and says so on stderr only: net_impl.cpp (setUpNet),
# net_impl_backend.cpp (setPreferableTarget, setPreferableBackend).
_FALLBACK = re.compile(
    r"[^\n]*(?:switching to CPU|fall(?:s|ing)? back to|not supported by the new graph engine)[^\n]*"
)
# What OpenCV prints where the driver can't compile a kernel (ocl.cpp); "dnn/dummy" only asks
# whether the compiler knows an option.
_NOT_COMPILED = re.compile(
    r"OpenCL program build log: (?!dnn/dummy)(?P<kernel>\S+)\n"
    r"Status [^\n]*\n[^\n]*\n(?P<error>[^\n]+)"
)
# "OpenCV(4.14.0) /io/…/tf_importer.cpp:3114: error: (-2:Unspecified error) text in function 'f'"
_OPENCV_ERROR = re.compile(
    r"OpenCV\([^)]*\)\s+(?P<file>\S+?):(?P<line>\d+): error: \((?P<code>[^)]*)\)\s*"
    r"(?P<text>.*?)(?:\s+in function '(?P<function>[^']*)')?\s*$",
    re.DOTALL,
)
# Where OpenCV names a node, the surest first. The last names one that was looked for in vain.
_NODE = tuple(
    map(
        re.compile,
        (
            r"node='([^']+)'",
            r"[Cc]an't create layer \"?([^\"\s]+)\"? (?:of|with) type",
            r"\[\w+\]:\(([^)\n]+)\)",
            r"[Ll]ayer '([^']+)'",
            r"Input layer not found: (\S+)",
            r"Requested layer \"([^\"]+)\"",
        ),
    )
)
# Functions of OpenCV that prepare a network; they run inside the first forward.
_SETTING_UP = re.compile(
    r"^(?:getMemoryShapes|getLayer(?:Instance|Shapes\w*)|allocateLayers?|setUpNet|finalize\w*|"
    r"fuseLayers|initBackend|init\w+Backend|validateBackendAndTarget|wrapMat|"
    r"createPlugin\w+|prepareForInference|inferShapes|assignBuffers)$"
)


class StageError(Exception):
    """A stage failed; `failure` tells the story."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Subject:
    """What a failure is about: the model's name, the run's configuration, OpenCV's version."""

    model: str
    config: RunConfig
    version: str

    def failed(self, stage: str, reason: str, node: Optional[str] = None) -> Failure:
        """Return the failure of `stage` for `reason`."""
        at = f" at node {node!r}" if node else ""
        message = (
            f"OpenCV {self.version} ({self.config.title}) could not "
            f"{DOING[stage]} {self.model}{at}: {reason}"
        )
        return Failure(stage, "error", message, node)


@contextmanager
def stage(name: str, subject: Subject, printed: Callable[[], str] = str) -> Iterator[None]:
    """Turn whatever is raised inside into a StageError of the stage `name`.

    printed: returns what OpenCV wrote to stderr since the stage began; it often names the node.
    """
    try:
        yield
    except (StageError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason, node, function = explain(error, printed())
        where = "setup" if name == "forward" and _SETTING_UP.match(function) else name
        raise StageError(subject.failed(where, reason, node)) from error


def explain(error: Exception, printed: str = "") -> tuple[str, Optional[str], str]:
    """Return (reason, node, OpenCV function) from an exception and what OpenCV printed.

    node is None and function "" where OpenCV names none.
    """
    text = str(error).strip()
    match = _OPENCV_ERROR.search(text)
    if match is None:
        # A ValueError is this room's own and says enough.
        kind = "" if type(error) is ValueError else f" ({type(error).__name__})"
        reason, function = text + kind, ""
    else:
        function = match["function"] or ""
        place = f"{os.path.basename(match['file'])}:{match['line']}"
        line = " ".join(match["text"].split())
        reason = f"{line} ({', '.join(part for part in (match['code'], function, place) if part)})"
    return reason, find_node(text, printed), function


def find_node(*texts: str) -> Optional[str]:
    """Return the graph node that OpenCV's messages name, or None."""
    both = "\n".join(texts)
    found = (pattern.search(both) for pattern in _NODE)
    return next((match.group(1) for match in found if match), None)


def settled(cv2: Any, config: RunConfig) -> RunConfig:
    """Return the configuration with an engine: for "default" that which OpenCV takes by itself."""
    # OpenCV 5 takes its new engine by itself; 4.x has the classic one only.
    return replace(config, engine=engines(cv2)[-1]) if config.engine == "default" else config


def read(cv2: Any, graph: Path, config: RunConfig, extra: Sequence[str] = ()) -> Any:
    """Parse the frozen graph, or its conversion, and return the cv2 net.

    extra: inner layers, or tensors of a conversion, to hand out, which the new engine must know
    while it reads. Raises ValueError for an importer or engine this OpenCV lacks and for an empty
    net; cv2.error for what OpenCV refuses.
    """
    importer = IMPORTERS.get(config.importer)
    if importer is None or not hasattr(cv2.dnn, importer.READER):
        raise ValueError(f"this build has no {config.importer} importer that can be used here")
    if config.engine not in engines(cv2):
        raise ValueError(
            f"this build has no engine {config.engine!r}, only {', '.join(engines(cv2))}"
        )
    constant = engine_constants(cv2).get(config.engine)
    number = [getattr(cv2.dnn, constant)] if constant else []
    net = importer.read(getattr(cv2.dnn, importer.READER), graph, number, extra)
    if net.empty():
        raise ValueError(f"OpenCV read {graph} without an error but the net it gave is empty")
    _check_engine(cv2, net, config.engine)
    return net


def _check_engine(cv2: Any, net: Any, engine: str) -> None:
    if len(engines(cv2)) < 2 or not hasattr(net, "getModelFormat"):
        return
    # Only the new engine's nets know the format they were read from (5.0.0).
    used = "classic" if net.getModelFormat() == cv2.dnn.DNN_MODEL_GENERIC else "new"
    if used != engine:
        raise ValueError(f"asked for the {engine} engine but OpenCV used the {used} one")


def configure(cv2: Any, net: Any, config: RunConfig) -> None:
    """Set backend, target, fusion and Winograd of `net` and the thread count as `config` says.

    Defaults are left alone. Raises ValueError for a (backend, target) pair that
    getAvailableTargets does not offer, and for a switch this version lacks.
    """
    backend = _constant(cv2, "DNN_BACKEND_", "backend", config.backend)
    target = _constant(cv2, "DNN_TARGET_", "target", config.target)
    if (config.backend, config.target) not in available_targets(cv2):
        raise ValueError(_not_offered(cv2, config))
    if config.backend != "default":
        net.setPreferableBackend(backend)
    if config.target != "cpu":
        net.setPreferableTarget(target)
    if config.fusion is not None:
        set_fusion(net, config.fusion)
    if config.winograd is not None:
        if not hasattr(net, "enableWinograd"):
            raise ValueError("this version has no Winograd switch")
        if config.engine == "new" and cv2.__version__.startswith("5.0"):
            raise ValueError("the new engine of OpenCV 5.0 ignores enableWinograd: same bits")
        net.enableWinograd(config.winograd)
    if config.threads is not None:
        cv2.setNumThreads(config.threads)


def set_fusion(net: Any, fusion: bool) -> None:
    """Switch layer fusion; raise ValueError where that can't be, or empties the net (5.0.0)."""
    if not hasattr(net, "enableFusion"):
        raise ValueError("this version has no fusion switch")
    net.enableFusion(fusion)
    if net.empty():
        raise ValueError(f"enableFusion({fusion}) left an empty net")


def _constant(cv2: Any, prefix: str, what: str, name: str) -> int:
    constants = dnn_constants(cv2, prefix)
    if name not in constants:
        raise ValueError(f"no {what} {name!r} in this version, only {', '.join(constants)}")
    return constants[name]


def _not_offered(cv2: Any, config: RunConfig) -> str:
    offered = ", ".join("/".join(pair) for pair in available_targets(cv2))
    return (
        f"backend {config.backend!r} with target {config.target!r} is not available here "
        f"(getAvailableTargets offers {offered})"
    )


def find_fallback(printed: str) -> Optional[str]:
    """Return the line in which OpenCV says that it does something else than asked, or None."""
    match = _FALLBACK.search(printed)
    return match.group(0).strip() if match else None


def missing_kernels(
    net: Any, config: RunConfig, launched: Mapping[str, int], printed: str = ""
) -> str:
    """Return why a forward did not run on the OpenCL target that was asked for, "" where it did.

    launched: the kernels that its device was given, by name. Each convolution needs one at least;
    other layers may be fused, or have no kernel. printed: what OpenCV wrote to stderr.
    """
    count, needed = sum(launched.values()), max(1, _convolutions(net, config.engine))
    if count >= needed:
        # Convolutions have it in their kernels' names (ocl4dnn_conv_spatial.cpp).
        in_float32 = config.target == "opencl_fp16" and any("_FP32_" in name for name in launched)
        return "asked for target opencl_fp16, but kernels ran in float32" if in_float32 else ""
    reason = (
        f"asked for target {config.target}, but its device was given {count} kernels where "
        f"{needed} at least are needed: the network, or part of it, ran on the CPU"
    )
    return "; ".join([reason, *not_compiled(printed)[:1]])


def not_compiled(printed: str) -> list[str]:
    """Return which of OpenCV's kernels, by what it printed, its OpenCL could not compile, and why.

    The layers that want them run on the CPU, and the others on the device.
    """
    found = {match["kernel"]: match["error"] for match in _NOT_COMPILED.finditer(printed)}
    return [f"OpenCL did not compile {kernel} ({error})" for kernel, error in found.items()]


def _convolutions(net: Any, engine: str) -> int:
    if engine != "classic":
        return 0  # the new engine of 5.0.0 tells the types of layers by name only, of some twice
    types = (str(net.getLayer(net.getLayerId(name)).type) for name in net.getLayerNames())
    return sum(kind == "Convolution" for kind in types)


def to_blob(images: Array, layout: str = "NCHW") -> Array:
    """Return NHWC images as the contiguous blob OpenCV takes, float32 unless in whole numbers.

    layout: of the blob; "NHWC" for an ONNX file whose input is so.
    """
    turned = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(
        turned, dtype=images.dtype if images.dtype.kind in "iu" else np.float32
    )


def forward(net: Any, images: Array, layout: str = "NCHW") -> Array:
    """Run NHWC images through the whole net; return a copy of its output as OpenCV shaped it."""
    return np.asarray(given(net, to_blob(images, layout), lambda: np.array(net.forward())))


def given(net: Any, blob: Array, forward: Callable[[], Any]) -> Any:
    """Give the net its input, and return what `forward` does; ValueError for a changed blob."""
    with untouched(blob):
        net.setInput(blob)
        return forward()


@contextmanager
def untouched(blob: Array) -> Iterator[None]:
    """Raise ValueError where OpenCV changes, inside, the array that it is given."""
    before = blob.tobytes()
    yield
    if blob.tobytes() != before:
        raise ValueError("OpenCV changed the array that it was given as input")
