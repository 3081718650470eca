"""A failure made small: a subgraph, its input, its truth, and a script that needs cv2 and NumPy.

The reference side cuts the graph, so that TensorFlow must be installed; whether a part still shows
the failure is asked of the script itself, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from conformance.candidate import BATCH, DOING, CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.opencv.scripts import (
    failing_output,
    make_folder,
    quoted,
    read_call,
    remove_attempt,
)
from conformance.pack.builder import require_tensorflow
from conformance.pack.conversion import require_conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS
from conformance.pack.request import keras_flavour
from conformance.pack.sampling import SAMPLED
from conformance.session import Session
from conformance.tables import release
from conformance.verdict.checks import judge_run
from conformance.verdict.nodes import NodeDeviation, first_bad
from conformance.verdict.tolerance import Allowance

if TYPE_CHECKING:
    from conformance.reference.reduce import Part  # a type

LARGE = 1 << 20
_CHANNELS = (64, 16, 4)
_DEVIATION = "root mean square deviation"  # what the script prints where OpenCV answers

_SCRIPT = '''"""{title}. Needs cv2 and NumPy only."""
import os
import sys

{environment}import cv2
import numpy as np

LIMIT = {limit!r}  # {why}
here = os.path.dirname(os.path.abspath(__file__))
image = np.load(os.path.join(here, "input.npy"))  # NHWC
expected = np.load(os.path.join(here, "expected.npy"))  # NHWC, TensorFlow in float64
print("OpenCV", cv2.__version__, flush=True)
net = {read}
{switches}net.setInput(np.ascontiguousarray(np.moveaxis(image, -1, 1)))
output = net.forward()
expected = np.moveaxis(expected, -1, 1)
if {differs}:
    sys.exit(f"shape {{output.shape}}, should be {{expected.shape}}")
deviation = np.sqrt(np.mean((output.reshape(expected.shape) - expected) ** 2))
print(f"{deviates} {{deviation:.3g}}, allowed {{LIMIT:.3g}}")
sys.exit(0 if deviation <= LIMIT else 1)
'''

_ISSUE = """# {title}

`reproduce.py` reads `{file}` ({nodes}, {size} KiB), runs it on `input.npy` and
compares with `expected.npy`, TensorFlow's answer to the same graph in double precision.{converted}

    python reproduce.py

gives

{output}

- OpenCV {version}, {title_of_run}, {distribution}
- node {node!r} ({op}) of {model}, a classifier of Keras frozen by opencv-dnn-conformance
- expected: a root mean square deviation of at most {limit:.3g} ({why})
"""


@dataclass(frozen=True)
class _Case:
    """What is reduced, and where to.

    target: the node that the part ends in. batch: whether it fails on several images at once only.
    """

    folder: Path
    session: Session
    pack: Pack
    config: RunConfig
    target: NodeDeviation
    batch: bool = False

    @property
    def file(self) -> Path:
        """The file that the script reads."""
        converted = FORMATS.get(self.config.importer)
        return self.folder / (converted.file if converted else "graph.pb")


def write_reproducer(folder: Path, session: Session, pack: Pack, config: RunConfig) -> str:
    """Write a graph, input.npy, expected.npy, reproduce.py and issue.md; return what was written.

    The graph is graph.pb, or for another importer the part of the frozen graph converted by itself.

    Raises ConformanceError where nothing fails, OpenCV names no node, TensorFlow is missing, or no
    part of the graph fails by itself.
    """
    if pack.manifest.importer in FORMATS:
        raise ConformanceError(
            f"--reduce cuts a frozen graph, and {pack.model} is a file as it stands: cut it at the "
            "tensor that localize names, with the tools of its format"
        )
    run = session.run(pack, config)
    require_tensorflow(keras_flavour(), "--reduce")
    batch = _fails_in_batches(session, pack, run)
    target = _last_node(pack) if batch else _target(session, pack, run)
    from conformance.reference.reduce import parts_around  # cuts the graph

    make_folder(folder)
    case = _Case(folder, session, pack, config, target, batch)
    image = pack.load("inputs")[:BATCH] if batch else _image(pack, run, target)
    tensors, starts = pack.manifest.tensors, _starts(pack, config)
    for last in (target.node, *_users(pack, target.node)):
        for part in parts_around(pack.graph_path, tensors, target.node, last, image, starts):
            output = _attempt(case, part)
            if output is not None:
                part, output = _shrink(case, part) or (part, output)
                return _write_issue(case, part, output)
    remove_attempt(case.folder, case.file.name)
    raise ConformanceError(
        f"--reduce {folder}: no part of {pack.model} around {target.node!r} fails by itself; "
        f"the whole model is needed ({pack.graph_path})"
    )


def _users(pack: Pack, node: str) -> list[str]:
    """Return the nodes that take what `node` gives: OpenCV may fail in folding it into one."""
    return [entry["node"] for entry in pack.manifest.layers if node in entry["inputs"]]


def _starts(pack: Pack, config: RunConfig) -> Optional[set[str]]:
    """Return the nodes that have a tensor of their own in the file, None where all have."""
    if config.importer not in FORMATS:
        return None
    tensors = require_conversion(pack, config.importer).manifest.tensors
    return {entry["node"] for entry in tensors}


def _fails_in_batches(session: Session, pack: Pack, run: CandidateRun) -> bool:
    """Return whether a batch is all that the run got wrong."""
    wrong = [
        judgement.metric
        for judgement in judge_run(session.limits, pack, run)
        if not judgement.passed
    ]
    stages = {failure.stage for failure in run.failures}
    return (stages == {"batch"} and not wrong) or (not stages and wrong == ["batch_linf"])


def _last_node(pack: Pack) -> NodeDeviation:
    """Return the node that gives the logits: a batch is judged by what comes out in the end."""
    logits = pack.manifest.tensors["logits"]
    op = next(entry["op"] for entry in pack.manifest.layers if entry["node"] == logits)
    return NodeDeviation(logits, op, (), None, None, 0.0, 0.0)


def _target(session: Session, pack: Pack, run: CandidateRun) -> NodeDeviation:
    """Return the node to reduce to: the first out of the noise, or the one OpenCV's error names."""
    nodes = session.limits.profile(pack, run) if run.layer_samples else []
    found = first_bad(nodes)
    if found is not None:
        return found
    if run.failure is None:
        unread = run.config.engine == "classic" and run.config.winograd is None
        hint = "; --winograd on reads the nodes as Winograd computes them" if unread else ""
        raise ConformanceError(
            f"--reduce: no node of {pack.model} leaves the noise, there is nothing to reduce{hint}"
        )
    from conformance.reference.reduce import node_that_uses  # reads the graph

    named = graph_node(pack, run)
    found_named = node_that_uses(pack.graph_path, pack.manifest.tensors, named)
    if found_named is not None:
        return NodeDeviation(*found_named, (), None, None, 0.0, 0.0)
    raise ConformanceError(
        f"--reduce: {pack.model} fails ({run.failure.stage}), but OpenCV names no node of the "
        f"graph that could be cut out"
    )


def graph_node(pack: Pack, run: CandidateRun) -> str:
    """Return the frozen graph's name of the node that OpenCV's error names, "" if it names none."""
    named = run.failure.node if run.failure and run.failure.node else ""
    if not named or run.config.importer not in FORMATS:
        return named
    for entry in require_conversion(pack, run.config.importer).manifest.tensors:
        if named.split("!")[-1] in (entry["tensor"], entry["layer"]):
            return entry["node"]
    return named.split("!")[-1].split(";")[0].split(":")[0]


def _image(pack: Pack, run: CandidateRun, target: NodeDeviation) -> Any:
    """Return the input, float32 [1, H, W, 3], on which the node strays most."""
    images = pack.load("inputs")[SAMPLED]
    samples = run.layer_samples.get(target.node)
    worst = 0
    if samples is not None:
        layer = next(layer for layer in pack.layers() if layer.node == target.node)
        at = layer.positions()
        strayed = np.abs(samples - layer.f64)[: len(at)]
        worst = int(at[int(np.nanargmax(strayed))] // np.prod(layer.shape[1:]))
    return images[worst : worst + 1]


def _attempt(case: _Case, part: Part) -> Optional[str]:
    """Write the part and its script; return what the script printed where it fails, else None."""
    from conformance.reference.reduce import write_part  # writes the graph

    if not write_part(case.file, part, case.config.importer):
        return None
    allowance = _allowance(case, part)
    title = f"{case.target.op} on OpenCV {case.session.capability['version']}, {case.config.title}"
    script = case.folder / "reproduce.py"
    script.write_text(_script(case, allowance, title), encoding="utf-8")
    return failing_output(script)


def _allowance(case: _Case, part: Part) -> Allowance:
    single, expected = part.single.reshape(1, -1), part.expected.reshape(1, -1)
    return case.session.limits.allow_node(case.pack, case.config, single, expected)


def _script(case: _Case, allowance: Allowance, title: str) -> str:
    constants, config = case.session.capability["engine_constants"], case.config
    shape = "shape" if case.batch else "size"  # of one image axes of size 1 may be missing
    return _SCRIPT.format(
        title=title,
        deviates=_DEVIATION,
        differs=f"output.{shape} != expected.{shape}",
        limit=float(allowance.values[0]),
        why=_why(allowance),
        read=read_call(config.importer, config.engine, constants, case.file.name),
        environment="".join(line + "\n" for line in _environment(config)),
        switches="".join(line + "\n" for line in _switches(case)),
    )


def _environment(config: RunConfig) -> Iterator[str]:
    """Yield what sets the variables by which OpenCV is run so, but for paths of this machine."""
    names = ("OPENCV_CPU_DISABLE", "OPENCV_DNN_OPENCL_ALLOW_ALL_DEVICES", "OPENCV_OPENCL_DEVICE")
    for name, value in config.environment.items():
        if name in names:
            yield f"os.environ.setdefault({name!r}, {value!r})"


def _switches(case: _Case) -> Iterator[str]:
    """Yield the calls that set the net up as it is for reading the layers."""
    if case.config.target != "cpu":
        yield f"net.setPreferableTarget(cv2.dnn.DNN_TARGET_{case.config.target.upper()})"
    if case.config.engine == "new":
        return
    yield "net.enableFusion(False)"
    if release(case.session.capability["version"]) >= release("4.7"):
        yield f"net.enableWinograd({bool(case.config.winograd)})"


def _why(allowance: Allowance) -> str:
    return f"{allowance.multiple:g} x TensorFlow's own float32 rounding, {allowance.reason}"


def _shrink(case: _Case, part: Part) -> Optional[tuple[Part, str]]:
    """Return the part with fewer channels that still fails, and its output; None if none does."""
    if case.file.stat().st_size <= LARGE:
        return None
    from conformance.reference.reduce import fewer_channels  # cuts the graph

    for keep in _CHANNELS:
        try:
            smaller = fewer_channels(part, keep, part.expected.shape[-1] // 2)
        except ConformanceError:
            break
        output = _attempt(case, smaller)
        if output is not None and case.file.stat().st_size <= LARGE:
            return smaller, output
    _attempt(case, part)  # the files of the whole part again
    return None


def _at_fault(case: _Case, part: Part) -> tuple[str, str]:
    """Return name and op of the node to blame: the one OpenCV's error names, or the target.

    The error may name a computation on constants, such as a Reshape, before the target.
    """
    failure = case.session.run(case.pack, case.config).failure
    node = part.graph.nodes().get(failure.node or "") if failure else None
    return (node.name, node.op) if node is not None else (case.target.node, case.target.op)


def _title(case: _Case, output: str, op: str) -> str:
    """Return what the script shows, which may be less than the whole model's failure."""
    failure = case.session.run(case.pack, case.config).failure
    if case.batch:
        return f"{op}: a batch of {BATCH} images gives other rows ({case.config.title})"
    if failure is None or _DEVIATION in output:
        return f"{op}: strays from TensorFlow ({case.config.title})"
    return f"{op}: fails to {DOING[failure.stage]} a graph ({case.config.title})"


def _converted(case: _Case) -> str:
    if case.config.importer not in FORMATS:
        return ""
    producer = require_conversion(case.pack, case.config.importer).manifest.producer
    versions = ", ".join(f"{name} {version}" for name, version in producer.items())
    return f"\nThe graph was converted with {versions}."


def _write_issue(case: _Case, part: Part, output: str) -> str:
    found = case.session.capability
    allowance = _allowance(case, part)
    node, op = _at_fault(case, part)
    size = case.file.stat().st_size / 1024
    nodes = "1 operation" if part.nodes == 1 else f"{part.nodes} operations"
    text = _ISSUE.format(
        title=_title(case, output, op),
        nodes=nodes,
        size=f"{size:.0f}",
        output=quoted(output, case.folder),
        version=found["version"],
        title_of_run=case.config.title,
        file=case.file.name,
        converted=_converted(case),
        distribution=found["distribution"],
        node=node,
        op=op,
        model=case.pack.model,
        limit=float(allowance.values[0]),
        why=_why(allowance),
    )
    (case.folder / "issue.md").write_text(text, encoding="utf-8")
    script = case.folder / "reproduce.py"
    return f"{case.folder}: {nodes}, {size:.0f} KiB; run {script}"
