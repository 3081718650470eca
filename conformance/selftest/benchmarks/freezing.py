"""freezing: time and memory of freezing, beside TensorFlow's own (needs TensorFlow)"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from conformance.cli import OK
from conformance.errors import ConformanceError
from conformance.models import get_model
from conformance.pack.builder import require_tensorflow
from conformance.pack.request import keras_flavour
from conformance.processes.child import ask_module
from conformance.processes.serve import answer_once
from conformance.reference.freeze import trace
from conformance.reference.graph import write_graph
from conformance.reference.graph.passes import apply_passes
from conformance.reference.weights import new_model

MIB = 1 << 20
_LINUX = "this benchmark reads memory figures from /proc, absent here: run it on Linux"


@dataclass(frozen=True)
class Row:
    """One way of freezing, from the loaded model to the written file.

    seconds: wall time. peak_mib: highest resident memory meanwhile. over_model_mib: that less the
    resident memory just before, which holds TensorFlow and the model.
    """

    way: str
    seconds: float
    peak_mib: float
    over_model_mib: float
    file_mib: float


def _streamed(model: Any, path: Path) -> None:
    write_graph(path, apply_passes(trace(model).graph)[0])


def _converted(model: Any, path: Path) -> None:
    function = tf.function(lambda x: model(x)).get_concrete_function(
        tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    )
    frozen = convert_variables_to_constants_v2(function)
    tf.io.write_graph(frozen.graph, str(path.parent), path.name, as_text=False)


WAYS: dict[str, Callable[[Any, Path], None]] = {
    "convert_variables_to_constants_v2": _converted,
    "conformance": _streamed,
}


def freeze_benchmark(model_name: str = "vgg16") -> str:
    """Return a table of time and peak memory of each way of freezing `model_name`.

    Raises ConformanceError for an unknown model, or when a measuring process fails.
    """
    return table(model_name, run(model_name))


def run(model_name: str = "vgg16") -> list[Row]:
    """Freeze `model_name` (random weights) each way in a process of its own, one after another."""
    get_model(model_name)
    return [measured_in_child(model_name, way) for way in WAYS]


def table(model_name: str, rows: list[Row]) -> str:
    """Return `rows` as text, with the ratios of the last row to the first."""
    theirs, ours = rows[0], rows[-1]
    head = f"{'freezing ' + model_name:36}{'s':>8}{'peak MiB':>10}{'over the model':>16}{'file':>7}"
    lines = [
        f"{r.way:36}{r.seconds:8.2f}{r.peak_mib:10.0f}{r.over_model_mib:16.0f}{r.file_mib:7.0f}"
        for r in rows
    ]
    seconds, peak, over = (
        f"1/{getattr(theirs, name) / max(getattr(ours, name), 1e-9):.1f}"
        for name in ("seconds", "peak_mib", "over_model_mib")
    )
    return "\n".join([head, *lines, f"{'ratio':36}{seconds:>8}{peak:>10}{over:>16}"])


def measured_in_child(model_name: str, way: str) -> Row:
    """Return what `measure` finds in a process of its own; ConformanceError when that fails."""
    failure = f"freezing {model_name} with {way}"
    return Row(**ask_module(__name__, [model_name, way], None, failure))


def measure(model_name: str, way: str) -> Row:
    """Load `model_name`, freeze it the given way into a temporary file and return the cost."""
    model = new_model(get_model(model_name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frozen_graph.pb"
        _forget_peak()
        before = _memory("VmRSS")
        start = time.perf_counter()
        WAYS[way](model, path)
        seconds = time.perf_counter() - start
        peak = _memory("VmHWM")
        return Row(way, seconds, peak, peak - before, path.stat().st_size / MIB)


def _forget_peak() -> None:
    """Let VmHWM start anew: the peak of loading a model would hide that of a frugal freezing."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        raise ConformanceError(_LINUX) from error


def _memory(name: str) -> float:
    """Return a figure of /proc/self/status in MiB.

    Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `freezing` takes."""
    parser.add_argument("model", nargs="?", default="vgg16", metavar="MODEL", help="default: vgg16")


def main(arguments: argparse.Namespace) -> int:
    """Print time and memory of freezing beside those of TensorFlow's own recipe."""
    get_model(arguments.model)
    require_tensorflow(keras_flavour(), "the benchmark of freezing")
    print(freeze_benchmark(arguments.model))
    return OK


if __name__ == "__main__":
    answer_once(lambda: asdict(measure(*sys.argv[1:3])))
