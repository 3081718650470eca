"""A pack's frozen graph in another file format: converted, run by that format's own runtime,
and each of its tensors matched with the node of the frozen graph that it equals.

A format is a module here, listed in pack/formats.py, with a function convert(graph, shape, path):
it writes the file and returns the names of its input and first output.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import numpy as np

from conformance.errors import ConformanceError
from conformance.pack.conversion import (
    OUTPUTS,
    Conversion,
    ConversionManifest,
    require_converter,
    write_conversion,
)
from conformance.pack.format import Pack, array_file
from conformance.pack.formats import FORMATS
from conformance.pack.sampling import SAMPLED
from conformance.pack.sealed import raise_shortage
from conformance.processes.pool import process_pool
from conformance.reference.graph import Array, Graph, heads_of, read_graph
from conformance.runtimes import RUNTIMES
from conformance.verdict.metrics import METRICS
from conformance.verdict.nodes import METRIC
from conformance.verdict.tolerance import noise_floor

from .match import Matcher

CONVERTERS: dict[str, ModuleType] = {name: import_module(f".{name}", __name__) for name in FORMATS}

Progress = Callable[[str], None]

# Larger graphs than this, in bytes, are converted in a process of their own.
APART = 64 << 20


def build_conversion(
    pack: Pack, importer: str, progress: Progress = lambda step: None
) -> Conversion:
    """Convert the frozen graph of `pack` for `importer` and return it, replacing one there.

    progress: called with the name of each step as it starts. Raises ConformanceError where the
    converter is missing or refuses the graph.
    """
    return write_conversion(
        pack, importer, lambda folder, manifest: _fill(folder, manifest, pack, progress)
    )


def convert(importer: str, graph: Graph, shape: list[int], path: Path) -> tuple[str, str]:
    """Write `graph` in the format of `importer`; return the names of its input and output.

    shape: of one image or vector, without the batch. Raises ConformanceError with the converter's
    reason where it refuses the graph.
    """
    require_converter(importer)
    try:
        given: tuple[str, str] = CONVERTERS[importer].convert(graph, shape, path)
        return given
    except Exception as error:  # converters raise whatever their own passes raise
        raise_shortage(error)
        title = FORMATS[importer].title
        lines = str(error).strip().splitlines()
        # TensorFlow's converter ends with the whole graph; what it could not do comes before.
        reason = [line for line in lines if "error:" in line][:1] or lines[-3:]
        raise ConformanceError(
            f"converting the graph to {title} failed ({type(error).__name__}): {' '.join(reason)}"
        ) from error


def _fill(folder: Path, manifest: ConversionManifest, pack: Pack, progress: Progress) -> None:
    importer = manifest.importer
    title, path = FORMATS[importer].title, folder / FORMATS[importer].file
    progress(f"converting to {title}")
    inputs = pack.load("inputs")
    manifest.input, manifest.output = convert_pack(importer, pack, path)
    progress(f"running the {title} file")
    try:
        outputs, matcher = _run(RUNTIMES[importer], path, inputs, pack)
    except Exception as error:  # runtimes raise errors of their own
        raise_shortage(error)
        raise ConformanceError(
            f"the {title} file that the converter wrote can't be run by its own runtime "
            f"({type(error).__name__}): {' '.join(str(error).split())[-400:]}"
        ) from error
    for number, answers in enumerate(outputs):
        np.save(folder / array_file(OUTPUTS, number), answers)
    manifest.strays = matcher.strays(_typical)
    manifest.tensors = [
        {"tensor": tensor, "layer": layer, "node": matcher.node_of[tensor]}
        for tensor, layer, _ in RUNTIMES[importer].operations(path)
        if tensor in matcher.node_of
    ]


def convert_pack(importer: str, pack: Pack, path: Path) -> tuple[str, str]:
    """Write the frozen graph of `pack` in the format of `importer`; see convert."""
    whole = (pack.graph_path, pack.manifest.tensors, heads_of(pack.manifest.heads))
    job = (importer, whole, list(pack.load("inputs").shape[1:]), path)
    apart = pack.graph_path.stat().st_size > APART
    return _in_child(*job) if apart else _convert_file(*job)


def _convert_file(
    importer: str, whole: tuple[Any, ...], shape: list[int], path: Path
) -> tuple[str, str]:
    """Convert the frozen graph that read_graph gives for the arguments `whole`."""
    return convert(importer, read_graph(*whole), shape, path)


def _in_child(*job: Any) -> tuple[str, str]:
    """Convert in a process of its own, whose memory is given back before the file is run."""
    failure = (
        f"converting {job[1][0]} to {FORMATS[job[0]].title}, which takes some 25 times the graph's "
        f"size in memory"
    )
    with process_pool(1, failure) as pool:
        return pool.submit(_convert_file, *job).result()


def _run(runtime: Any, path: Path, inputs: Array, pack: Pack) -> tuple[list[Array], Matcher]:
    """Return each output [N, C] for all inputs, and the file's tensors matched on those SAMPLED."""
    matcher = Matcher(pack.layers())
    sampled = list(range(len(inputs)))[SAMPLED]
    answers: dict[int, Optional[list[Array]]] = dict.fromkeys(range(len(inputs)))
    for place, (outputs, values) in enumerate(runtime.run(path, inputs[SAMPLED], True)):
        if place == 0:
            matcher.pair(values)
        matcher.add(place, values)
        answers[sampled[place]] = outputs
    rest = [index for index, answer in answers.items() if answer is None]
    for index, (outputs, _) in zip(rest, runtime.run(path, inputs[rest], False)):
        answers[index] = outputs
    rows = zip(*(answers[index] or [] for index in range(len(inputs))))
    return [np.concatenate([value.reshape(1, -1) for value in row]) for row in rows], matcher


def _typical(float32: Array, float64: Array) -> float:
    """Return TensorFlow's own rounding of a node, or one float32 eps of its values if less."""
    size = METRICS[METRIC].measure(float64, 0 * float64)[0]
    return max(float(noise_floor(METRIC, float32, float64)[0]), float(size) * 2.0**-23)
