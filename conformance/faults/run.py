"""Would the suite have noticed? Each fault judged by three methods, and where each puts the blame.

A fault that changes nothing is told by proof: TensorFlow's float64 answer of the changed graph, or
to the changed input, is that of the right one.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.fixtures import fixture_path
from conformance.inputs.images import CHECK_PHOTOS, load_photo
from conformance.localize.diagnosis import unread_input
from conformance.localize.reduce import graph_node
from conformance.models import ModelSpec, get_model
from conformance.opencv.blobs import run_blobs
from conformance.opencv.run import run_candidate
from conformance.pack.conversion import (
    Conversion,
    ConversionManifest,
    require_conversion,
    write_conversion,
)
from conformance.pack.format import GRAPH, Pack
from conformance.pack.formats import FORMATS
from conformance.processes.scratch import Scratch
from conformance.reference.formats import convert_pack
from conformance.reference.freeze import trace
from conformance.reference.graph import Array, Graph, read_graph, sources, write_graph
from conformance.reference.oracle import REFUSED
from conformance.reference.oracle import run as run_tensorflow
from conformance.reference.weights import build_model
from conformance.runtimes import RUNTIMES
from conformance.session import Session
from conformance.verdict.checks import judge_run
from conformance.verdict.metrics import l1_mean, linf
from conformance.verdict.nodes import NodeDeviation, first_bad
from conformance.verdict.tolerance import EPS32

from .call import CallFault, call_faults, calls, right
from .graph import Fault, epsilon_faults, graph_faults
from .outcome import Outcome

# OpenCV's own limits for float32 on the CPU: the defaults of normAssert in modules/dnn/test/
# test_common.hpp, mean and greatest |difference| to TensorFlow's float32 outputs.
OPENCV_MEAN, OPENCV_MAX = 1e-5, 1e-4
# What float64 sums in another order may differ by, as after exchanging an addition's operands.
PROVEN = 1e-11
INPUTS = "inputs.npy"


@dataclass(frozen=True)
class Bench:
    """What the faults of one model share."""

    session: Session
    pack: Pack
    config: RunConfig
    graph: Graph


def model_outcomes(
    session: Session, pack: Pack, config: RunConfig, a_kind: int
) -> Iterator[Outcome]:
    """Yield the unchanged model's outcome, then those of `a_kind` faults of each kind.

    Where OpenCV does not answer the unchanged model rightly faults would tell nothing.
    """
    graph = read_graph(pack.graph_path, pack.manifest.tensors)
    bench = Bench(session, pack, config, graph)
    unchanged = _judged(bench, session.run(pack, config))
    yield unchanged
    if unchanged.ours:
        print(f"left out: {pack.model} is not right as it is ({unchanged.how})", file=sys.stderr)
        return
    yield from _graph_outcomes(bench, graph_faults(graph, pack.model, a_kind))
    traced = trace(build_model(get_model(pack.model), session.choices.weights)).graph
    yield from _graph_outcomes(bench, epsilon_faults(graph, traced, pack.model, a_kind))
    yield from _call_outcomes(bench)


def _graph_outcomes(bench: Bench, faults: Iterable[Fault]) -> Iterator[Outcome]:
    for fault in faults:
        try:
            run = _run_faulty(bench, bench.pack, fault)
        except ConformanceError as error:  # there is no such file for OpenCV to read
            print(f"left out: {fault.kind}, at {fault.node}: {error}", file=sys.stderr)
            continue
        yield _judged(bench, run, fault)


def _run_faulty(bench: Bench, pack: Pack, fault: Fault) -> CandidateRun:
    """Run OpenCV on the faulty graph; raise ConformanceError where it can't be converted."""
    importer = bench.config.importer
    with _copied_pack(pack, GRAPH, importer) as faulty:
        write_graph(faulty.path / GRAPH, fault.graph)
        if importer in FORMATS:
            _convert_faulty(faulty, require_conversion(pack, importer))
        return run_candidate(faulty, bench.config, bench.session.choices.candidate_timeout)


def _convert_faulty(faulty: Pack, right: Conversion) -> None:
    """Convert a faulty graph; its tensors stand for the nodes that they stand for in `right`."""
    importer = right.manifest.importer

    def fill(folder: Path, manifest: ConversionManifest) -> None:
        path = folder / FORMATS[importer].file
        manifest.input, manifest.output = convert_pack(importer, faulty, path)
        there = {tensor for tensor, _, _ in RUNTIMES[importer].operations(path)}
        manifest.tensors = [entry for entry in right.manifest.tensors if entry["tensor"] in there]
        for answers in right.path.glob("*.npy"):  # which nothing here reads
            shutil.copy(answers, folder)

    write_conversion(faulty, importer, fill)


@contextmanager
def _copied_pack(pack: Pack, *without: str) -> Iterator[Pack]:
    """Give a pack like `pack` in a folder of its own that lacks some files."""
    with Scratch() as name:
        folder = Path(name, pack.model, pack.path.name)
        folder.mkdir(parents=True)
        for file in pack.path.iterdir():
            if file.name not in without:
                (folder / file.name).symlink_to(file)
        yield Pack(folder, pack.manifest)


def _judged(bench: Bench, run: CandidateRun, fault: Optional[Fault] = None) -> Outcome:
    pack = bench.pack
    nodes = _nodes(bench, run)
    judgements = judge_run(bench.session.limits, pack, run, nodes)
    failed = [judgement.metric for judgement in judgements if not judgement.passed]
    truth = pack.load("outputs_f64")
    located = _located(bench, run, nodes, fault)
    return Outcome(
        model=pack.model,
        kind=fault.kind if fault else "",
        node=fault.node if fault else "",
        equivalent=fault is None or is_equivalent(fault.graph, pack.load("inputs"), truth),
        top1=top1_differs(run.outputs, truth),
        opencv=beyond_opencv_limits(run.outputs, pack.load("outputs_f32")),
        ours=bool(run.failures or failed),
        located=located,
        localised=bool(fault and located in _partners(bench.graph, fault.node, run)),
        how=", ".join([*(failure.stage for failure in run.failures), *failed]),
    )


def _nodes(bench: Bench, run: CandidateRun) -> Optional[list[NodeDeviation]]:
    """Return how far each node strays, None where none was read."""
    if not (run.carriers and (run.layer_samples or run.layers_wrong)):
        return None
    return bench.session.limits.profile(bench.pack, run)


def _located(
    bench: Bench, run: CandidateRun, nodes: Optional[list[NodeDeviation]], fault: Optional[Fault]
) -> str:
    """Return the node that a failure's message names, "" where it names none."""
    if nodes is None:
        return graph_node(bench.pack, run)
    bad = first_bad(nodes)
    index = None if bad else unread_input(bench.session, bench.pack, run)
    if fault and index is not None:
        # As where_bad does it, but that the pack's own graph is not the one that OpenCV gets.
        alone = bench.session.focus(bench.pack, index)
        bad = first_bad(bench.session.limits.profile(alone, _run_faulty(bench, alone, fault)))
    return bad.node if bad else ""


def _partners(graph: Graph, node: str, run: CandidateRun) -> set[str]:
    """Return the changed node and, where OpenCV has no layer of it, the next that it has one of."""
    found: set[str] = set()
    pending = [node]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        if name not in run.layer_samples and name not in run.layers_wrong:
            pending += [user.name for user in graph.definition.node if name in sources(user)]
    return found


def is_equivalent(graph: Graph, images: Array, truth: Array) -> bool:
    """Return whether float64 gives the same answers; most often the first input decides."""
    parts = (slice(0, 1), slice(1, None))
    return all(_same(_float64(graph, images[part]), truth[part]) for part in parts)


def _float64(graph: Graph, images: Array) -> Optional[Array]:
    """Return the float64 outputs; None where TensorFlow refuses the graph."""
    try:
        return run_tensorflow(graph, images, "float64").outputs
    except REFUSED:
        return None


def _same(found: Optional[Array], truth: Array) -> bool:
    if found is None or found.shape != truth.shape:
        return False
    return bool(np.abs(found - truth).max() <= PROVEN * np.abs(truth).max())


def top1_differs(outputs: Optional[Array], truth: Array) -> bool:
    """Return whether the best class of any input is another, or there are no outputs."""
    if outputs is None or outputs.shape != truth.shape:
        return True
    return bool(np.any(outputs.argmax(axis=1) != truth.argmax(axis=1)))


def beyond_opencv_limits(outputs: Optional[Array], reference: Array) -> bool:
    """Return whether OpenCV's own tests would reject any input's outputs."""
    if outputs is None or outputs.shape != reference.shape:
        return True
    mean, most = (distance(outputs, reference).max() for distance in (l1_mean, linf))
    return bool(mean > OPENCV_MEAN or most > OPENCV_MAX)


def _call_outcomes(bench: Bench) -> Iterator[Outcome]:
    """Yield the outcomes of the faults of preprocessing, judged as test_preprocessing does."""
    spec = get_model(bench.pack.model)
    photos = [
        np.ascontiguousarray(load_photo(fixture_path(f"images/{name}.jpg"))[..., ::-1])
        for name in CHECK_PHOTOS
    ]
    stated = np.concatenate([right(spec).blob(photo) for photo in photos])
    double, single = (
        run_tensorflow(bench.graph, _nhwc(stated), d).outputs for d in ("float64", "float32")
    )
    for fault in (CallFault("", calls(photos, right(spec))), *call_faults(photos, spec)):
        given = _blobs(fault, spec)
        changed = run_tensorflow(bench.graph, _nhwc(given), "float64").outputs
        outputs = _answers(bench, _nhwc(given))
        noticed = not np.all(np.abs(given - stated) <= _rounding(stated, spec))
        yield Outcome(
            model=spec.name,
            kind=fault.kind,
            node="input",
            equivalent=not fault.kind or _same(changed, double),
            top1=top1_differs(outputs, double),
            opencv=beyond_opencv_limits(outputs, single),
            ours=noticed,
            located="input" if noticed else "",
            localised=noticed,
            how="preprocessing" if noticed else "",
        )


def _blobs(fault: CallFault, spec: ModelSpec) -> Array:
    given = run_blobs(fault.cases)
    errors = [blob for blob in given if isinstance(blob, str)]
    assert not errors, errors
    blobs = np.concatenate([np.asarray(blob) for blob in given])
    return right(spec).divide(blobs) if fault.divide else blobs


def _rounding(stated: Array, spec: ModelSpec) -> Array:
    """Return what may differ: one unit in the last place, and what dividing by std makes of it."""
    std = right(spec).std
    if std is None:
        return np.asarray(np.spacing(np.abs(stated)))
    return np.asarray(2 * np.spacing(np.abs(stated)) + EPS32 / min(std))


def _nhwc(blobs: Array) -> Array:
    return np.ascontiguousarray(blobs.transpose(0, 2, 3, 1))


def _answers(bench: Bench, images: Array) -> Optional[Array]:
    """Return OpenCV's outputs of other inputs."""
    with _copied_pack(bench.pack, INPUTS) as pack:
        np.save(pack.path / INPUTS, images)
        config = replace(bench.config, layers=False)
        return run_candidate(pack, config, bench.session.choices.candidate_timeout).outputs
