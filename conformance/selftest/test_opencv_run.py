"""The OpenCV room under test: real OpenCV, real faults, a tiny network and no TensorFlow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from conformance.candidate import BATCH, REPEATS, STAGES, CandidateRun, Failure, RunConfig
from conformance.errors import ConformanceError
from conformance.opencv import net
from conformance.opencv.blobs import BlobCase, run_blobs
from conformance.opencv.capability import probe_in_child
from conformance.opencv.run import run_candidate, running_bytes
from conformance.pack.building import Building
from conformance.pack.format import Pack
from conformance.pack.pool import Pool
from conformance.pack.sampling import SAMPLED
from conformance.session import Choices, Session

from . import sabotaged_child
from .graphdef import changed, constant, encode_graph, operation, write_graph
from .tiny import graph_nodes, tiny_inputs, tiny_pack, tiny_weights

RIGHT = graph_nodes(tiny_weights())


@pytest.fixture(scope="module")
def offered() -> dict[str, Any]:
    """What the installed OpenCV offers."""
    return probe_in_child()


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The tiny network's pack."""
    return tiny_pack(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def runs(pack: Pack, offered: dict[str, Any]) -> dict[str, CandidateRun]:
    """One plain run an engine."""
    return {name: run_candidate(pack, RunConfig(engine=name)) for name in offered["engines"]}


def engines_of(offered: dict[str, Any]) -> Iterator[str]:
    """Yield the engines to try."""
    yield from offered["engines"]


def failure_of(run: CandidateRun) -> Failure:
    """Return the run's first failure, which must be there."""
    assert run.failure is not None, "the run should have failed"
    return run.failure


def test_outputs_are_those_of_the_network(pack: Pack, runs: dict[str, CandidateRun]) -> None:
    """Every engine's outputs and logits of the tiny network equal NumPy's float64 ones."""
    for run in runs.values():
        assert not run.failures, str(run.failure)
        assert run.outputs is not None
        assert run.logits is not None
        np.testing.assert_allclose(run.outputs, pack.load("outputs_f64"), atol=1e-5)
        np.testing.assert_allclose(run.logits, pack.load("logits_f64")[SAMPLED], atol=1e-4)


def test_run_reports_what_it_did(pack: Pack, runs: dict[str, CandidateRun]) -> None:
    """A run holds a forward an image, the repeated ones, a raw batch, times, memory and version."""
    for run in runs.values():
        assert run.outputs is not None
        assert run.repeat is not None
        assert run.batch is not None
        assert run.times_ms is not None
        assert run.outputs.shape == (8, 10)
        assert run.outputs.dtype == np.float32
        assert run.batch.shape == (BATCH, 10)
        assert np.array_equal(run.repeat, run.outputs[:REPEATS])
        np.testing.assert_allclose(run.batch, run.outputs[:BATCH], atol=1e-5)
        assert run.times_ms.shape == (8,)
        assert (run.times_ms > 0).all()
        assert run.peak_mib is not None
        assert 20 < run.peak_mib < 2000
        assert run.version == probe_in_child()["version"]


def test_peak_memory_is_the_childs(pack: Pack) -> None:
    """A parent that holds 600 MiB does not show in the child's peak memory."""
    ballast = np.ones(600 << 17)
    run = run_candidate(pack)
    assert ballast[-1] == 1
    assert run.peak_mib is not None
    assert run.peak_mib < 500


def test_memory_of_a_run_grows_with_file_and_layers(pack: Pack) -> None:
    """What is told beforehand counts the file 3.5 times, and layers that are read 2.25 times."""
    without, with_layers = (running_bytes(pack, RunConfig(layers=on)) for on in (False, True))
    assert without == (100 << 20) + pack.graph_path.stat().st_size * 7 // 2
    activations = sum(4 * int(np.prod(entry["shape"][1:])) for entry in pack.manifest.layers)
    assert with_layers - without == activations * 9 // 4


def test_session_asks_builders_for_room(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """While packs are built, a run asks for the memory that it takes, and has it until its end."""
    asked: list[Any] = []

    @contextmanager
    def room(building: Building, memory: int) -> Iterator[None]:
        asked.append(memory)
        yield
        asked.append("end")

    monkeypatch.setattr(Building, "room", room)
    session, config = Session(Choices(pack.path.parent.parent)), RunConfig(layers=True)
    session.building = Building(Pool([]), lambda *_: nullcontext(lambda told: None))
    assert session.run(pack, config).failure is None
    assert asked == [running_bytes(pack, config), "end"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encode_graph(RIGHT)[:1000], "Failed to parse GraphDef"),
        (b"node { name: 'x' op: 'Placeholder' }\n" * 40, "could not parse"),
        (b"", "could not parse"),
    ],
    ids=["truncated", "text", "empty"],
)
def test_unreadable_graph_fails_at_parse(
    offered: dict[str, Any], tmp_path: Path, data: bytes, said: str
) -> None:
    """A truncated .pb, a text and an empty file fail at the parse stage on every engine."""
    broken = tiny_pack(tmp_path)
    broken.graph_path.write_bytes(data)
    for engine in engines_of(offered):
        run = run_candidate(broken, RunConfig(engine=engine))
        failure = failure_of(run)
        assert failure.stage == "parse"
        assert said in str(failure)
        assert f"OpenCV {offered['version']} ({engine} engine) could not parse mobilenet" in str(
            failure
        )
        assert run.outputs is None


@pytest.mark.parametrize("node", ["conv1/Relu", "bn/mul"])
def test_unknown_operation_names_its_node(
    offered: dict[str, Any], tmp_path: Path, node: str
) -> None:
    """An operation OpenCV has not is told with its node's name, before any forward."""
    broken = tiny_pack(tmp_path, nodes=changed(RIGHT, node, op="Frobnicate"))
    for engine in engines_of(offered):
        failure = failure_of(run_candidate(broken, RunConfig(engine=engine)))
        assert failure.stage in ("parse", "setup")
        assert failure.kind == "error"
        assert failure.node == node
        assert f"at node {node!r}" in str(failure)
        assert "Frobnicate" in str(failure)


def test_wrong_kernel_names_its_node(tmp_path: Path) -> None:
    """A kernel of the wrong depth fails at set-up at its convolution, found in OpenCV's log."""
    wrong = constant("conv2/kernel", np.zeros((3, 3, 5, 12), np.float32))
    nodes = [wrong if node.name == "conv2/kernel" else node for node in RIGHT]
    failure = failure_of(run_candidate(tiny_pack(tmp_path, nodes=nodes)))
    assert (failure.stage, failure.kind) == ("setup", "error")
    assert failure.node == "conv2/Conv2D"


def test_wrong_input_shape_is_an_error(offered: dict[str, Any], tmp_path: Path) -> None:
    """Inputs with two channels instead of three are a set-up error on every engine."""
    wrong = tiny_pack(tmp_path, inputs=np.ascontiguousarray(tiny_inputs()[..., :2]))
    for engine in engines_of(offered):
        failure = failure_of(run_candidate(wrong, RunConfig(engine=engine)))
        assert (failure.stage, failure.kind) == ("setup", "error")
        assert "input channels" in str(failure)


def test_real_crash_of_opencv_is_a_failure(offered: dict[str, Any], tmp_path: Path) -> None:
    """A ConcatV2 whose axis is in tensor_content, which crashes OpenCV's parser, is a failure."""
    nodes = [
        *RIGHT[:-1],
        constant("axis", np.array(1, np.int32)),
        operation("twice", "ConcatV2", "head/BiasAdd", "head/BiasAdd", "axis"),
        operation("probabilities", "Softmax", "twice"),
    ]
    run = run_candidate(tiny_pack(tmp_path, nodes=nodes))
    failure = failure_of(run)
    assert failure.stage == "parse"
    assert f"OpenCV {offered['version']} " in str(failure)
    if failure.kind == "crash":  # 4.5.1 to 5.0.0; a later version may refuse it
        assert failure.signal == "SIGSEGV"
        assert "SIGSEGV" in str(failure)


Sabotage = Callable[[str], None]


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Have the candidate's process suffer a fault (see sabotaged_child)."""

    def sabotage(fault: str) -> None:
        monkeypatch.setenv("SABOTAGE", fault)
        monkeypatch.setattr("conformance.opencv.run.CHILD", sabotaged_child.__name__)

    return sabotage


@pytest.mark.parametrize("stage", STAGES)
def test_crash_at_each_stage_is_told(pack: Pack, sabotage: Sabotage, stage: str) -> None:
    """A segmentation fault at any stage is its failure and keeps what came before, at batch all."""
    sabotage(f"segv {stage}")
    run = run_candidate(pack, RunConfig(layers=True))
    failure = failure_of(run)
    assert len(run.failures) == 1
    assert (failure.stage, failure.kind, failure.signal) == (stage, "crash", "SIGSEGV")
    done = STAGES.index(stage)
    assert (run.outputs is not None) == (done > STAGES.index("forward"))
    assert (run.batch is not None) == (done > STAGES.index("batch"))
    without_batch = stage == "batch"
    assert (run.logits is not None) == (without_batch or done > STAGES.index("logits"))
    assert bool(run.layer_samples) == without_batch


@pytest.mark.parametrize(
    ("how", "kind", "signal"), [("abort", "crash", "SIGABRT"), ("kill", "killed", "SIGKILL")]
)
def test_abort_and_kill_are_told_apart(
    pack: Pack, sabotage: Sabotage, how: str, kind: str, signal: str
) -> None:
    """An abort is a crash; a SIGKILL, as the out-of-memory killer sends it, is "killed"."""
    sabotage(f"{how} forward")
    run = run_candidate(pack)
    failure = failure_of(run)
    assert (failure.stage, failure.kind, failure.signal) == ("forward", kind, signal)
    assert f"OpenCV {run.version} " in str(failure)


def test_hang_is_ended_with_its_helpers(pack: Pack, sabotage: Sabotage) -> None:
    """A run that hangs is ended at the time limit, and so is a process it started."""
    sabotage("hang start")
    run = run_candidate(pack, timeout=6)
    failure = failure_of(run)
    assert (failure.stage, failure.kind, failure.signal) == ("start", "timeout", None)
    assert "time limit of 6 s" in str(failure)
    helper = int(run.log.split("helper process ")[1].split()[0])
    deadline = time.monotonic() + 30  # the kernel takes its time when the machine is busy
    while runs_still(helper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs_still(helper)


def runs_still(pid: int) -> bool:
    """Say whether the process runs; one that ended and waits to be collected does not."""
    if not Path("/proc/self/stat").exists():
        ps = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
        return ps.stdout.strip()[:1] not in ("", "Z")
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


@pytest.mark.usefixtures("no_device")
def test_target_that_is_not_offered_is_refused(pack: Pack) -> None:
    """Asking for a target that getAvailableTargets does not offer is an error before running."""
    run = run_candidate(pack, RunConfig(backend="opencv", target="opencl"))
    failure = failure_of(run)
    assert (failure.stage, failure.kind) == ("setup", "error")
    assert "'opencl' is not available here" in str(failure)
    assert "opencv/cpu" in str(failure)
    assert run.outputs is None


@pytest.mark.usefixtures("no_device")
def test_falling_back_to_the_cpu_is_an_error(
    pack: Pack, offered: dict[str, Any], sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV's own fallback to the CPU, told on stderr only, does not pass for a result."""
    # With "1", as the suite has it, it says nothing; see test_opencl.py.
    monkeypatch.setenv("OPENCV_DNN_OPENCL_ALLOW_ALL_DEVICES", "0")
    sabotage("unchecked-target")
    for engine in engines_of(offered):
        config = RunConfig(engine=engine, backend="opencv", target="opencl")
        run = run_candidate(pack, config)
        assert failure_of(run).stage == "setup"
        assert "only warns: [ WARN" in str(run.failure)
        assert run.outputs is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (RunConfig(engine="warp"), "no engine 'warp', only classic"),
        (RunConfig(importer="caffe"), "no caffe importer"),
        (RunConfig(target="abacus"), "no target 'abacus'"),
        (RunConfig(backend="abacus"), "no backend 'abacus'"),
    ],
)
def test_what_this_version_lacks_is_named(pack: Pack, config: RunConfig, said: str) -> None:
    """An engine, importer, target or backend this OpenCV lacks is an error that names it."""
    assert said in str(failure_of(run_candidate(pack, config)))


def test_switches_are_passed_on(pack: Pack, offered: dict[str, Any]) -> None:
    """Fusion, threads and Winograd are set as asked, or refused where OpenCV has no switch."""
    plain = run_candidate(pack, RunConfig(threads=1, fusion=False))
    assert not plain.failures
    assert plain.threads == 1
    winograd = run_candidate(pack, RunConfig(winograd=False))
    version = tuple(int(part) for part in offered["version"].split(".")[:2])
    if version >= (4, 7):
        assert not winograd.failures
    else:
        assert "no Winograd switch" in str(failure_of(winograd))


def test_engine_of_the_environment_does_not_win(
    pack: Pack, offered: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENCV_FORCE_DNN_ENGINE in the environment does not change the engine a run asks for."""
    for forced in ("1", "2"):
        monkeypatch.setenv("OPENCV_FORCE_DNN_ENGINE", forced)
        for engine in engines_of(offered):
            assert not run_candidate(pack, RunConfig(engine=engine)).failures


def test_batch_error_lets_the_logits_be_read() -> None:
    """An error or a crash of the batch alone leaves the run's other arrays usable."""
    run = CandidateRun(RunConfig())
    for kind in ("error", "crash"):
        run.failures = [Failure("batch", kind, "no batch")]
        assert run.failure_before("batch") is run.failure
        assert run.failure_before("logits") is None
        assert run.failure_before("forward") is None
    run.failures = [Failure("layers", "crash", "gone")]
    assert run.failure_before("logits") is run.failure
    run.logits = np.zeros((1, 1))
    assert run.failure_before("logits") is None


def test_log_lines_are_in_the_message(tmp_path: Path) -> None:
    """What OpenCV printed before it failed ends the message and is kept whole in the log."""
    wrong = tiny_pack(tmp_path, inputs=np.ascontiguousarray(tiny_inputs()[..., :2]))
    run = run_candidate(wrong)
    assert "getLayerShapesRecursively" in run.log
    assert "Its last output:" in str(run.failure)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("DNN/TF: Can't parse layer for node='a/b' of type='Reshape'. Exception: x", "a/b"),
        ('Can\'t create layer "a/b" of type "Foo" in function \'getLayerInstance\'', "a/b"),
        ("Can't create layer a/b with type Foo in function 'addLayer'", "a/b"),
        ("OPENCV/DNN: [Convolution]:(a/b): getMemoryShapes() throws exception.", "a/b"),
        ("Input layer not found: a/ReadVariableOp in function 'connect'", "a/ReadVariableOp"),
        ("Assertion failed) !field.empty() in function 'getTensorContent'", None),
    ],
)
def test_node_is_found_in_opencvs_words(text: str, node: str) -> None:
    """The graph node is taken from every way OpenCV's versions name one."""
    assert net.find_node(text) == node


def test_missing_importer_is_gated_on_the_attribute(tmp_path: Path) -> None:
    """A cv2 whose dnn module lost readNetFromTensorflow is told as having no such importer."""
    write_graph(tmp_path / "graph.pb", RIGHT)
    code = (
        "import cv2; from pathlib import Path; del cv2.dnn.readNetFromTensorflow\n"
        "from conformance.opencv import capability, net\n"
        "from conformance.candidate import RunConfig\n"
        "assert 'tensorflow' not in capability.probe()['importers']\n"
        "net.read(cv2, Path('graph.pb'), RunConfig())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
    )
    assert "this build has no tensorflow importer" in done.stderr


def test_run_needs_no_cv2_in_this_process() -> None:
    """Importing the parent's side loads neither cv2 nor TensorFlow."""
    code = (
        "import sys, conformance.opencv.run\n"
        "sys.exit(any(name in sys.modules for name in ('cv2', 'tensorflow', 'keras')))"
    )
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0


def test_blobs_are_opencvs() -> None:
    """run_blobs returns what blobFromImage and blobFromImages give, uint8 and float32 alike."""
    image = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)
    plain = {"scalefactor": 0.5, "mean": (1.0, 2.0, 3.0), "swapRB": True}
    cases = [
        BlobCase(image, plain),
        BlobCase(image.astype(np.float32), plain),
        BlobCase([image, image[::-1].copy()], plain),
        BlobCase(image, {"size": (4, 2), "crop": True}),
    ]
    blobs = run_blobs(cases)
    wanted = ((image[..., ::-1] - np.array([1.0, 2.0, 3.0])) * 0.5).transpose(2, 0, 1)
    for blob, shape in zip(blobs, [(1, 3, 6, 9), (1, 3, 6, 9), (2, 3, 6, 9), (1, 3, 2, 4)]):
        assert not isinstance(blob, str)
        assert blob.shape == shape
        assert blob.dtype == np.float32
    for blob in blobs[:3]:
        assert not isinstance(blob, str)
        np.testing.assert_allclose(blob[0], wanted, atol=1e-5)


def test_blob_error_is_returned_as_text() -> None:
    """A call that OpenCV refuses gives its message and leaves the other cases alone."""
    image = np.zeros((4, 4, 3), np.uint8)
    wrong, right = run_blobs([BlobCase(image, {"nonsense": 1}), BlobCase(image)])
    assert isinstance(wrong, str)
    assert "nonsense" in wrong
    assert not isinstance(right, str)


def test_full_temporary_folder_is_no_fault_of_opencv(
    pack: Pack, sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the child has no room for its answers the run is an error that names the folder."""
    sabotage("full forward")
    with pytest.raises(ConformanceError, match=r"No space left on device.*TMPDIR chooses another"):
        run_candidate(pack)
    sabotage("abort forward")
    usage = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ConformanceError, match=r"No space left on device"):
        run_candidate(pack)
