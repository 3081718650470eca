"""Fault injection: each kind changes what it says, nothing else, and the suite notices."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf

from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.faults.call import CALL_KINDS, call_faults
from conformance.faults.command import read, report
from conformance.faults.graph import KINDS, generator, graph_faults, with_value
from conformance.faults.outcome import Outcome
from conformance.faults.run import Bench, _graph_outcomes, beyond_opencv_limits, top1_differs
from conformance.fixtures import fixture_path
from conformance.inputs.images import CHECK_PHOTOS, load_photo
from conformance.inputs.preprocessing import get_mode
from conformance.models import get_model
from conformance.reference.formats import build_conversion
from conformance.reference.graph import Graph, read_graph
from conformance.reference.oracle import REFUSED, run
from conformance.session import Choices, Session

from .tiny import tiny_pack

CLASSES = 1000


def small_graph() -> Graph:
    """Return a network that has a site for every kind of fault."""
    rng = np.random.default_rng(5)

    def weights(*shape: int, scale: float = 0.4) -> Any:
        return tf.constant(rng.standard_normal(shape) * scale, tf.float32)

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 12, 12, 3], "x")
        y = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        y = tf.nn.conv2d(y, weights(3, 3, 3, 8, scale=2.0), 1, "VALID")
        y = tf.nn.relu6(tf.nn.bias_add(y, weights(8)))
        one = tf.nn.depthwise_conv2d(y, weights(3, 3, 8, 1), [1, 1, 1, 1], "SAME")
        other = tf.nn.conv2d(y, weights(1, 1, 8, 8), 1, "SAME") * weights(8) + weights(8)
        other = tf.nn.relu(other)
        y = tf.concat([one, other, one + other], 3)
        y = tf.nn.max_pool2d(y, 3, 1, "SAME") + tf.nn.avg_pool2d(y, 3, 1, "SAME")
        y = tf.matmul(tf.reduce_mean(y, [1, 2]), weights(24, CLASSES, scale=1.0))
        tf.nn.softmax(tf.nn.bias_add(y, weights(CLASSES), name="logits"), name="output")
    return Graph(graph.as_graph_def(), {}, "x", "logits", "output")


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A network that has a site for every kind of fault."""
    return small_graph()


@pytest.fixture(scope="module")
def images() -> Any:
    """Four images of noise, float32 NHWC."""
    return np.random.default_rng(6).standard_normal((4, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_fault_changes_the_answer(graph: Graph, images: Any, kind: str) -> None:
    """At some site each kind changes TensorFlow's float64 answer, and leaves the original alone."""
    before = run(graph, images, "float64").outputs
    faults = [fault for fault in graph_faults(graph, "small", 99) if fault.kind == kind]
    assert faults
    assert max(_change(fault.graph, images, before) for fault in faults) > 1e-6
    np.testing.assert_array_equal(run(graph, images, "float64").outputs, before)


def _change(graph: Graph, images: Any, before: Any) -> float:
    try:
        after = run(graph, images, "float64").outputs
    except REFUSED:  # the shapes no longer fit together, which is a change indeed
        return float("inf")
    return float(np.abs(after - before).max()) if after.shape == before.shape else float("inf")


def test_exchanged_terms_of_a_sum_change_nothing(graph: Graph, images: Any) -> None:
    """Exchanging the operands of an addition is proven to be no fault; those of a Concat are."""
    before = run(graph, images, "float64").outputs
    ops = {node.name: node.op for node in graph.definition.node}
    seen = set()
    for fault in graph_faults(graph, "small", 99):
        if fault.kind == "branches exchanged":
            same = np.array_equal(run(fault.graph, images, "float64").outputs, before)
            assert same == (ops[fault.node] == "AddV2"), fault.node
            seen.add(ops[fault.node])
    assert seen == {"AddV2", "ConcatV2"}


def test_faults_are_seeded(graph: Graph) -> None:
    """The same model gets the same faults again, another model others."""
    nodes = [[f.node for f in graph_faults(graph, model, 2)] for model in ("a", "a", "b")]
    assert nodes[0] == nodes[1] != nodes[2]
    assert generator("a", "b").integers(1 << 30) == generator("a", "b").integers(1 << 30)


def test_another_value_is_written(graph: Graph) -> None:
    """A constant is replaced in the new graph alone."""
    name = next(n.name for n in graph.definition.node if n.op == "Const")
    value = graph.value_of(name)
    assert np.array_equal(with_value(graph, name, value + 1).value_of(name), value + 1)
    assert np.array_equal(graph.value_of(name), value)


@pytest.mark.parametrize("model", ["mobilenet", "densenet121"])
def test_calls_are_each_wrong_in_one_way(model: str) -> None:
    """Each fault of the call keeps size and image, but for the one thing that it is named after."""
    photo = load_photo(fixture_path(f"images/{CHECK_PHOTOS[0]}.jpg"))[..., ::-1]
    spec = get_model(model)
    faults = {fault.kind: fault for fault in call_faults([photo], spec)}
    assert set(faults) == set(CALL_KINDS)
    for kind, fault in faults.items():
        assert fault.cases[0].arguments["size"] == (spec.size, spec.size)
        assert fault.cases[0].arguments["crop"] == (kind != "crop missing")
        assert fault.divide == (kind != "std forgotten")
    assert get_mode(spec.mode).apply(photo).shape == photo.shape


def test_methods_see_what_they_promise() -> None:
    """Top-1 sees another best class only; OpenCV's limits see 1e-3 and not 1e-6."""
    truth = np.full((2, 10), 0.05)
    truth[:, 3] = 0.55
    near, far, other = truth + 1e-6, truth + 0.0, truth + 0.0
    far[0, 3] += 1e-3
    other[1, 4] = 0.9
    assert [top1_differs(v, truth) for v in (near, far, other, None)] == [False, False, True, True]
    assert [beyond_opencv_limits(v, truth) for v in (near, far, None)] == [False, True, True]


def outcome(**changes: Any) -> Outcome:
    """Return a fault that was caught and localised, with `changes`."""
    caught = {"top1": False, "opencv": True, "ours": True, "localised": True}
    given: dict[str, Any] = {"model": "m", "kind": "k", "node": "n", "equivalent": False, **caught}
    return Outcome(**{**given, **changes})


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([outcome()] * 300, 0),
        ([outcome()] * 300 + [outcome(ours=False, localised=False)], 0),
        ([outcome()] * 100 + [outcome(ours=False, localised=False)], 1),
        ([outcome()] * 90 + [outcome(localised=False)] * 10, 1),
        ([outcome(), outcome(kind="", ours=True)], 1),
        ([outcome(), outcome(equivalent=True, ours=True)], 1),
        ([outcome(), outcome(equivalent=True, ours=False)], 0),
    ],
    ids=["all", "one-of-301", "one-of-101", "elsewhere", "alarm", "false-alarm", "equivalent"],
)
def test_report_keeps_the_promise(
    outcomes: list[Outcome], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 1 below 99.5 % caught or 95 % localised, and for any false alarm."""
    assert report(outcomes, "table") == status
    assert "unchanged" in capsys.readouterr().out


def test_outcomes_are_read_back(tmp_path: Path) -> None:
    """Outcomes written by a run are those read; another file is refused by its name."""
    path = tmp_path / "faults.jsonl"
    path.write_text(json.dumps(asdict(outcome(kind="k", how="parse"))) + "\n")
    assert list(read(path)) == [outcome(kind="k", how="parse")]
    path.write_text('{"kind": "case"}\n')
    with pytest.raises(ConformanceError, match=r"faults\.jsonl: no outcomes"):
        list(read(path))


def test_unwritable_outcomes_are_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`faults --output` to a folder that is not there exits 2 before any fault is injected."""
    assert main(["faults", "mobilenet", "--output", str(tmp_path / "nowhere" / "o.jsonl")]) == 2
    assert "o.jsonl: can't be written" in capsys.readouterr().err


def test_quick_faults_are_all_caught(mobilenet_packs: Path) -> None:
    """`faults --quick` catches and localises one fault of each kind on two real models."""
    packs = str(mobilenet_packs)
    command = [sys.executable, "-m", "conformance", "faults", "--quick", "--packs", packs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "ours 0" in done.stdout
    assert "MISSED" not in done.stdout


def test_faults_go_through_another_importers_file(tmp_path: Path) -> None:
    """A faulty graph is converted to ONNX and judged by the right pack: caught, and localised."""
    pytest.importorskip("tf2onnx")
    pack = tiny_pack(tmp_path)
    build_conversion(pack, "onnx")
    session = Session(Choices(tmp_path, importers=["onnx"], engines=["default"]))
    graph = read_graph(pack.graph_path, pack.manifest.tensors)
    bench = Bench(session, pack, session.variants()[0], graph)
    kinds = "constant x (1 + 1e-2)", "kernel flipped", "softmax omitted"
    faults = [fault for fault in graph_faults(graph, "tiny", 1) if fault.kind in kinds]
    outcomes = list(_graph_outcomes(bench, faults))
    assert [outcome.kind for outcome in outcomes] == list(kinds)
    assert all(one.ours and one.localised and not one.equivalent for one in outcomes), outcomes


def test_several_importers_at_once_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults are counted for one way to read them: two importers are an error that says so."""
    asked = ["faults", "mobilenet", "--importer", "tensorflow,onnx", "--packs", str(tmp_path)]
    assert main(asked) == 2
    assert "give one of each" in capsys.readouterr().err


def test_faults_in_generated_models(capsys: pytest.CaptureFixture[str]) -> None:
    """Faults are injected into the generated models that are right, and nearly all are caught."""
    assert main(["faults", "--generated", "12", "--engine", "default"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"faults of \d+ generated models that are right as they are", out)
    total = re.search(r" all +(\d+) +(\d+) +\S+ +\S+ +(\S+)", out)
    assert total is not None
    assert int(total[1]) - int(total[2]) > 50
    assert float(total[3].rstrip("%")) >= 95
    assert main(["faults", "--generated", "12", "--quick"]) == 2
    assert "give either --generated N" in capsys.readouterr().err
