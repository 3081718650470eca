"""The reducer: what it writes fails by itself, is small, and needs cv2 and NumPy only."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

import numpy as np

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError
from conformance.localize.reduce import _environment, write_reproducer
from conformance.pack.format import Pack
from conformance.processes.opencl import RUNTIME, opencl_environment
from conformance.reference.graph import read_graph
from conformance.reference.reduce import cut
from conformance.session import Choices, Session

from .graphdef import changed, constant, operation
from .tiny import graph_nodes, tiny_pack, tiny_weights

CONV = "conv1/Conv2D"


@pytest.fixture
def strict(tmp_path: Path) -> tuple[Session, Pack, RunConfig]:
    """The tiny network, and a session that allows a node nothing but a millionth of its noise."""
    pack = tiny_pack(tmp_path / "packs")
    session = Session(Choices(tmp_path / "packs", engines=["classic"]))
    rule = replace(session.limits.tolerances.rules["layer_rms"], multiple=1e-6, floor_eps=1e-6)
    rules = {**session.limits.tolerances.rules, "layer_rms": replace(rule, multiple_winograd=1e-6)}
    tolerances = replace(session.limits.tolerances, rules=rules)
    session.__dict__["limits"] = replace(session.limits, tolerances=tolerances)
    return session, pack, session.variants()[0]


def test_reproducer_fails_by_itself(
    tmp_path: Path, strict: tuple[Session, Pack, RunConfig]
) -> None:
    """The first bad node is cut out with input, truth and a short script that shows the fault."""
    folder = tmp_path / "out"
    told = write_reproducer(folder, *strict)
    assert str(folder) in told
    assert (folder / "graph.pb").stat().st_size < 1 << 20
    text = (folder / "reproduce.py").read_text()
    assert len(text.splitlines()) <= 30
    modules = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert modules <= {"cv2", "numpy", "os", "sys"}
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "reproduce.py")], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "root mean square deviation" in done.stdout
    issue = (folder / "issue.md").read_text()
    assert "'conv1/BiasAdd' (BiasAdd)" in issue
    assert "root mean square deviation" in issue
    assert "(1 operation, " in issue
    assert str(tmp_path) not in issue


def test_truth_is_the_cut_graphs_own(
    tmp_path: Path, strict: tuple[Session, Pack, RunConfig]
) -> None:
    """expected.npy is what the part's operations make of input.npy in float64."""
    write_reproducer(tmp_path / "out", *strict)
    expected = np.load(tmp_path / "out" / "expected.npy", allow_pickle=False)
    image = np.load(tmp_path / "out" / "input.npy", allow_pickle=False)
    assert (expected.dtype, image.dtype) == (np.float64, np.float32)
    bias = tiny_weights()["conv1/bias"].astype(np.float64)
    np.testing.assert_array_equal(expected, image.astype(np.float64) + bias)


def test_part_of_a_graph_whose_input_has_the_parts_name(tmp_path: Path) -> None:
    """A part that begins inside a graph whose own input is called "input" has one such node."""
    pack = tiny_pack(tmp_path)
    graph = read_graph(pack.graph_path, pack.manifest.tensors)
    whole = cut(graph, graph.input, "bn/add", np.zeros((1, 16, 16, 3), np.float32))
    inner = cut(whole, "conv1/Relu", "bn/add", np.zeros((1, 16, 16, 8), np.float32))
    assert [node.name for node in inner.definition.node].count("input") == 1
    assert "conv1/Conv2D" not in inner.nodes()


def test_refused_operation_is_reduced(tmp_path: Path) -> None:
    """An operation that OpenCV refuses is cut out alone; the issue quotes its error, no path."""
    nodes = changed(graph_nodes(tiny_weights(), 16), "conv1/Relu", op="Digamma")
    pack = tiny_pack(tmp_path / "packs", nodes=nodes)
    session = Session(Choices(tmp_path / "packs", engines=["classic"]))
    write_reproducer(tmp_path / "out", session, pack, session.variants()[0])
    issue = (tmp_path / "out" / "issue.md").read_text()
    assert issue.startswith("# Digamma: fails to ")
    assert "(1 operation, " in issue
    assert "cv2.error" in issue
    assert str(tmp_path) not in issue


@pytest.mark.parametrize(
    ("op", "operands", "blamed"),
    [
        ("Reshape", ("conv1/old", "conv1/shape"), "'conv1/made' (Reshape)"),
        ("Digamma", ("conv1/old",), "'conv1/Conv2D' (Conv2D)"),
    ],
    ids=["computed-constant", "folded"],
)
def test_node_that_the_error_names_is_blamed(
    tmp_path: Path, op: str, operands: tuple[str, ...], blamed: str
) -> None:
    """Of a part that ends in another node, title and text name the one that OpenCV refuses."""
    made = [
        constant("conv1/old", tiny_weights()["conv1/bias"]),
        constant("conv1/shape", np.array([-1], np.int32)),
        operation("conv1/made", op, *operands),
    ]
    nodes = changed(graph_nodes(tiny_weights()), "conv1/BiasAdd", inputs=(CONV, "conv1/made"))
    pack = tiny_pack(tmp_path / "packs", nodes=nodes[:1] + made + nodes[1:])
    session = Session(Choices(tmp_path / "packs", engines=["classic"]))
    write_reproducer(tmp_path / "out", session, pack, session.variants()[0])
    issue = (tmp_path / "out" / "issue.md").read_text()
    assert f"node {blamed}" in issue
    assert issue.startswith(f"# {blamed.split('(')[1][:-1]}: fails to ")


def test_failed_attempt_leaves_no_files(tmp_path: Path) -> None:
    """Where no part of the graph fails by itself, no script that would pass is left behind."""
    scale = tiny_weights()["bn/scale"] * np.float32(1.01)
    wrong = constant("bn/scale", scale)
    nodes = [wrong if n.name == wrong.name else n for n in graph_nodes(tiny_weights())]
    pack = tiny_pack(tmp_path / "packs", nodes=nodes)
    session = Session(Choices(tmp_path / "packs", engines=["classic"]))
    with pytest.raises(ConformanceError, match="the whole model is needed"):
        write_reproducer(tmp_path / "out", session, pack, session.variants()[0])
    assert not (tmp_path / "out").exists()


def test_nothing_to_reduce_is_told(tmp_path: Path) -> None:
    """A model that stays in the noise gives an error and no files."""
    pack = tiny_pack(tmp_path / "packs")
    session = Session(Choices(tmp_path / "packs", engines=["classic"]))
    with pytest.raises(ConformanceError, match="nothing to reduce"):
        write_reproducer(tmp_path / "out", session, pack, session.variants()[0])
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made_is_told(
    tmp_path: Path, strict: tuple[Session, Pack, RunConfig]
) -> None:
    """--reduce into the path of a file is one error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConformanceError, match=r"--reduce .*file: can't be made a folder"):
        write_reproducer(tmp_path / "file", *strict)


def test_script_runs_opencv_as_the_failure_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU features are off, and OpenCL's devices allowed; no path of this machine is in it."""
    given = {**opencl_environment(), RUNTIME: "/here/libOpenCL.so"}
    monkeypatch.setattr("conformance.candidate.opencl_environment", lambda: given)
    found = list(_environment(RunConfig(cpu="baseline", cpu_off=("AVX2", "FP16"))))
    assert found == ["os.environ.setdefault('OPENCV_CPU_DISABLE', 'AVX2,FP16')"]
    names = [line.split("'")[1] for line in _environment(RunConfig(target="opencl"))]
    assert names == ["OPENCV_DNN_OPENCL_ALLOW_ALL_DEVICES", "OPENCV_OPENCL_DEVICE"]
