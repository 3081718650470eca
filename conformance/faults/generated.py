"""Faults in generated models: small graphs, of which OpenCV runs many in one process.

A failure of one names its layers; which of them is to blame is for ``findings --reduce`` to say, so
nothing is located here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.generated.drawing import draw
from conformance.generated.outcomes import RIGHT, SINGLE, Judge
from conformance.generated.outcomes import Outcome as Judged
from conformance.generated.recipes import Recipe
from conformance.generated.run import outcomes_of
from conformance.generated.store import SEED, passing_pack
from conformance.pack.formats import FORMATS
from conformance.processes.scratch import Scratch
from conformance.reference.formats import convert
from conformance.reference.generated import graph_of
from conformance.reference.graph import Array, Graph, write_graph
from conformance.reference.oracle import run as run_tensorflow
from conformance.session import Session

from .graph import Fault, graph_faults
from .outcome import Outcome
from .run import beyond_opencv_limits, is_equivalent, top1_differs


@dataclass(frozen=True)
class Case:
    """A model's graph, as it is or with a fault."""

    model: str  # the recipe's key
    graph: Graph
    arrays: dict[str, Array]  # of the unchanged graph: "inputs", and its outputs "f32" and "f64"
    fault: Fault


def generated_outcomes(session: Session, config: RunConfig, count: int) -> Iterator[Outcome]:
    """Yield the outcomes of the first `count` recipes and of one fault of each kind in each.

    Models that OpenCV doesn't answer rightly as they are tell nothing, and are left out with their
    faults; so are graphs that can't be converted for the importer.
    """
    cases = [case for recipe in draw(count, SEED) for case in _cases(recipe)]
    outputs: dict[str, Any] = {}
    judged = _judged(session, config, cases, outputs)
    there = [(case, str(n)) for n, case in enumerate(cases) if str(n) in judged]
    right = {c.model for c, key in there if not c.fault.kind and judged[key].symptom == RIGHT}
    for case, key in there:
        if case.model in right:
            yield _outcome(case, judged[key], outputs.get(key))


def _cases(recipe: Recipe) -> Iterator[Case]:
    try:
        graph, inputs = graph_of(recipe)
        single, double = (run_tensorflow(graph, inputs, d).outputs for d in ("float32", "float64"))
    except Exception:  # one model that TensorFlow can't build must not cost the others
        return
    arrays = {"inputs": inputs, "f32": single, "f64": double}
    key = recipe.key()
    yield Case(key, graph, arrays, Fault("", "", graph))
    for fault in graph_faults(graph, key, 1):
        yield Case(key, graph, arrays, fault)


def _judged(
    session: Session, config: RunConfig, cases: list[Case], outputs: dict[str, Any]
) -> dict[str, Judged]:
    """Return each case's outcome by its number; OpenCV's outputs go into `outputs`."""
    version = session.capability["version"]
    judge = Judge(session.limits.tolerances, version, config)

    def watching(
        key: str, arrays: dict[str, Any], answers: dict[str, Any], batches: bool
    ) -> list[Judged]:
        outputs[key] = answers.get("outputs")
        return judge.judge(key, arrays, answers, False)

    arrays = {
        f"{number}/{what}": values.reshape(len(values), -1) if what in _ROWS else values
        for number, case in enumerate(cases)
        for what, values in case.arrays.items()
    }
    importer = config.importer
    # The file's own runtime is not asked: it is to answer as TensorFlow does.
    arrays |= {f"{n}/{importer}": arrays[f"{n}/f32"] for n in range(len(cases))}
    with Scratch() as name:
        made = {str(number): _file(importer, case, Path(name)) for number, case in enumerate(cases)}
    files = {f"{key}/{importer}": file for key, file in made.items() if file is not None}
    models = [{"key": key, "operations": {importer: []}} for key in made if made[key] is not None]
    with passing_pack(importer, models, files, arrays) as pack:
        found = outcomes_of(pack, replace(config, importer=importer), watching)
        return {one.key: one for one in found if one.run == SINGLE}


_ROWS = ("f32", "f64")  # what the pack has as a row of values for each image


def _file(importer: str, case: Case, folder: Path) -> Optional[Array]:
    """Return the bytes of the file that `importer` reads, None where no converter makes it."""
    graph, path = case.fault.graph, folder / "graph"
    if importer not in FORMATS:
        write_graph(path, graph)
        return np.fromfile(path, np.uint8)
    try:
        convert(importer, graph, list(case.arrays["inputs"].shape[1:]), path)
    except ConformanceError:
        return None
    return np.fromfile(path, np.uint8)


def _outcome(case: Case, found: Judged, outputs: Any) -> Outcome:
    truth, fault = case.arrays["f64"], case.fault
    return Outcome(
        model=case.model,
        kind=fault.kind,
        node=fault.node,
        equivalent=not fault.kind or is_equivalent(fault.graph, case.arrays["inputs"], truth),
        top1=top1_differs(outputs, truth),
        opencv=beyond_opencv_limits(outputs, case.arrays["f32"]),
        ours=found.symptom != RIGHT,
        how=found.symptom if found.symptom != RIGHT else "",
    )
