"""Localising: the node named is the wrong one, in message, profile and picture."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.localize.chart import draw_profile
from conformance.localize.diagnosis import diagnose, localize_command
from conformance.opencv.capability import probe_in_child
from conformance.pack.format import Pack
from conformance.pack.sampling import SAMPLED
from conformance.results.cases import read_results
from conformance.results.lines import CASES
from conformance.session import Choices, Session
from conformance.verdict.checks import is_clean, judge_run
from conformance.verdict.nodes import NodeDeviation, first_bad, judge_layers, layers_line

from .graphdef import constant
from .tiny import graph_nodes, tiny_pack, tiny_weights

Diagnosed = tuple[Session, Pack, CandidateRun]


def diagnosed(root: Path, engine: str = "classic", **faulty: Any) -> Diagnosed:
    """Return session, pack and run of the tiny network with the constants `faulty`."""
    nodes = graph_nodes(tiny_weights())
    for name, value in faulty.items():
        full = name.replace("__", "/")
        nodes = [constant(full, value) if node.name == full else node for node in nodes]
    pack = tiny_pack(root, nodes=nodes)
    session = Session(Choices(root, engines=[engine]))
    return session, pack, session.run(pack, session.variants()[0])


def wrong_scale() -> dict[str, Any]:
    """Return a fault of the batch norm: one of its 12 scales is off by a thousandth."""
    scale = tiny_weights()["bn/scale"].copy()
    scale[3] *= 1.001
    return {"bn__scale": scale}


@pytest.mark.parametrize("engine", ["classic", "new"])
def test_first_bad_node_is_the_changed_one(
    tmp_path: Path, engine: str, has_engine: Callable[[str], None]
) -> None:
    """A scale off by a thousandth is found at the addition it is folded into, on each engine."""
    has_engine(engine)
    session, pack, run = diagnosed(tmp_path, engine, **wrong_scale())
    nodes = session.limits.profile(pack, run)
    bad = first_bad(nodes)
    assert bad is not None
    assert (bad.node, bad.layer) == ("bn/add", "bn/mul")
    before = nodes[: nodes.index(bad)]
    assert before
    assert not any(node.bad for node in before)


@pytest.fixture
def has_engine() -> Callable[[str], None]:
    """Skips a test of an engine that this OpenCV lacks."""

    def check(engine: str) -> None:
        if engine not in probe_in_child()["engines"]:
            pytest.skip(f"this OpenCV has no engine {engine!r}")

    return check


@pytest.mark.parametrize(
    ("engine", "convolutions", "switched", "wide"),
    [
        ("new", 13, None, True),
        ("new", 0, None, False),
        ("classic", 13, None, False),
        ("classic", 13, True, True),
        ("classic", 0, True, False),
    ],
)
def test_nodes_are_allowed_winograds_rounding_only_where_it_ran(
    tmp_path: Path, engine: str, convolutions: int, switched: Optional[bool], wide: bool
) -> None:
    """A node has the wider multiple on a graph and an engine whose nodes Winograd computes."""
    pack = tiny_pack(tmp_path)
    pack.manifest.winograd = convolutions
    session = Session(Choices(tmp_path))
    session.__dict__["capability"] = {"version": "5.0.0"}
    config = RunConfig(engine=engine, winograd=switched)
    samples = np.ones((1, 50), np.float32), np.ones((1, 50)) + 1e-7
    rule = session.limits.tolerances.rules["layer_rms"]
    found = session.limits.allow_node(pack, config, *samples).multiple
    assert found == (rule.multiple_winograd if wide else rule.multiple)


def test_softmax_is_measured_by_its_own_rounding(tmp_path: Path) -> None:
    """A softmax's deviation, noise and allowance are all of the softmax alone, given its logits."""
    session, pack, run = diagnosed(tmp_path, **wrong_scale())
    *_, logits, softmax = session.limits.profile(pack, run)
    assert (softmax.op, softmax.bad, logits.bad) == ("Softmax", False, True)
    assert softmax.observed is not None
    assert max(softmax.observed, softmax.noise) < softmax.allowed < 1e-4
    assert logits.noise > 10 * softmax.noise


def test_softmax_of_what_is_no_number_is_bad(tmp_path: Path) -> None:
    """Logits that are not finite leave the softmax a finite limit, which the results file takes."""
    pack = tiny_pack(tmp_path / "packs")
    session = Session(Choices(tmp_path / "packs", engines=["classic"]))
    run = session.run(pack, session.variants()[0])
    for node in ("head/BiasAdd", "probabilities"):
        run.layer_samples[node] = np.full_like(run.layer_samples[node], np.nan)
    nodes = session.limits.profile(pack, run)
    assert nodes[-1].bad
    CASES.check(layers_line(pack.model, "", nodes))


def test_right_network_has_no_bad_node(tmp_path: Path) -> None:
    """Each node of the right network stays in the noise, and each is held, folded or moved."""
    session, pack, run = diagnosed(tmp_path)
    assert first_bad(session.limits.profile(pack, run)) is None
    assert judge_layers(session.limits.profile(pack, run)).passed
    assert is_clean(session.limits, pack, run)


def test_diagnosis_names_node_inputs_and_command(tmp_path: Path) -> None:
    """The diagnosis has node, op, layer, both deviations, tapping, and the command to look on."""
    session, pack, run = diagnosed(tmp_path, **wrong_scale())
    text = "\n".join(diagnose(session, pack, run.config))
    assert "'bn/add', AddV2, OpenCV layer 'bn/mul'" in text
    assert "its inputs by up to" in text
    assert "stays while all layers are read" in text
    assert "vanishes with" not in text
    assert f"localize {pack.model} --engine classic --packs {tmp_path}" in text


def test_fault_of_winograd_is_localised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where outputs are wrong with Winograd only, the message has the switch and the node."""
    session, _, faulty = diagnosed(tmp_path / "faulty", **wrong_scale())
    pack = tiny_pack(tmp_path / "right")
    right = session.run(pack, faulty.config)
    outputs = np.array(right.outputs)
    outputs[SAMPLED] = np.array(faulty.outputs)[SAMPLED]
    by_winograd = {None: replace(right, outputs=outputs), True: faulty, False: right}
    monkeypatch.setattr(Session, "run", lambda self, pack, config: by_winograd[config.winograd])
    text = "\n".join(diagnose(session, pack, right.config))
    assert "every node, read without fusion and Winograd, stays in the noise" in text
    assert "vanishes with --winograd off" in text
    assert "with --winograd on first node out of the noise" in text
    assert "'bn/add', AddV2" in text


def test_lost_layer_is_bad(tmp_path: Path) -> None:
    """A node that computes and has no layer in OpenCV is bad; a Pad without one is not."""
    lost = NodeDeviation("relu", "Relu", (), None, None, 0.1, 0.2, "OpenCV makes no layer of it")
    assert lost.bad
    assert not replace(lost, op="Pad").bad
    assert not replace(lost, absent="Relu is folded into next").bad
    assert judge_layers([lost]).observed == float("inf")


def test_wrong_shape_is_bad(tmp_path: Path) -> None:
    """A node whose output has another shape is named, with both shapes."""
    session, pack, run = diagnosed(tmp_path)
    run.layers_wrong = {"conv2/Relu6": "shape [1, 12, 4, 4] in OpenCV, [4, 8, 8, 12] in TensorFlow"}
    bad = first_bad(session.limits.profile(pack, run))
    assert bad is not None
    assert bad.node == "conv2/Relu6"
    assert "[1, 12, 4, 4]" in bad.absent


def test_extremes_are_compared(tmp_path: Path) -> None:
    """A value that is wrong only where an image is brightest is seen: extremes are sampled."""
    session, pack, run = diagnosed(tmp_path)
    samples = run.layer_samples["conv1/Relu"]
    layer = next(layer for layer in pack.layers() if layer.node == "conv1/Relu")
    samples[len(layer.positions())] += 0.01
    bad = first_bad(session.limits.profile(pack, run))
    assert bad is not None
    assert bad.node == "conv1/Relu"


def test_suite_and_judge_run_agree(tmp_path: Path) -> None:
    """judge_run makes each judgement that the suite's tests record, and no other."""
    root = tmp_path / "packs"
    session, pack, run = diagnosed(root)
    command = [sys.executable, "-m", "pytest", "--pyargs", "conformance.suite", f"--packs={root}"]
    command += ["-k", f"{pack.model} and not mobilenetv2", "--engine=classic"]
    command += [f"--results={tmp_path}", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    (file,) = tmp_path.glob("*.jsonl")
    recorded = {case["metric"] for case in read_results(file).cases if "metric" in case}
    assert recorded - {"frozen_l1_sum"} == {j.metric for j in judge_run(session.limits, pack, run)}
    (line,) = read_results(file).layers
    assert line == layers_line(pack.model, "", session.limits.profile(pack, run))


def test_command_repeats_the_settings(tmp_path: Path) -> None:
    """The command of a diagnosis has every setting that is not the default."""
    session = Session(Choices(tmp_path, graph="raw"))
    axes: dict[str, Any] = {"engine": "new", "target": "opencl", "winograd": False, "threads": 1}
    config = RunConfig(**axes, cpu="without_AVX_AVX2", cpu_off=("AVX", "AVX2"))
    command = localize_command(session, "vgg16", config)
    for part in ("--engine new", "--graph raw", "--winograd off", "--threads 1", "--target opencl"):
        assert part in command
    assert "--cpu-disable AVX,AVX2" in command
    baseline = replace(config, cpu="baseline")
    assert "--cpu-disable baseline" in localize_command(session, "vgg16", baseline)


def test_localize_prints_and_draws(tmp_path: Path) -> None:
    """`localize` exits 1, marks the node and draws a picture; on a right network it exits 0."""
    diagnosed(tmp_path / "bad", **wrong_scale())
    diagnosed(tmp_path / "good")
    picture = tmp_path / "profile.png"
    command = [sys.executable, "-m", "conformance", "localize", "mobilenet", "--packs"]
    bad = subprocess.run(
        [*command, str(tmp_path / "bad"), "--plot", str(picture)], capture_output=True, text=True
    )
    assert bad.returncode == 1, bad.stderr
    lines = bad.stdout.splitlines()
    marked = next(number for number, line in enumerate(lines) if "first out of the noise" in line)
    assert "bn/add" in lines[marked - 1]
    assert any(line.startswith("logits_linf on 'noise") for line in lines)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    good = subprocess.run([*command, str(tmp_path / "good")], capture_output=True, text=True)
    assert good.returncode == 0, good.stdout


def test_unwritable_picture_is_told(tmp_path: Path) -> None:
    """A picture that can't be written is one error that names the file."""
    node = NodeDeviation("a", "Relu", (), "a", 1e-6, 1e-6, 1e-5)
    with pytest.raises(ConformanceError, match=r"nowhere.*can't be written"):
        draw_profile(tmp_path / "nowhere" / "p.png", [node], "title")


def test_profile_is_rounded_and_keeps_infinity() -> None:
    """A results line holds three digits, null without a layer, and infinity as text."""
    nodes = [
        NodeDeviation("a", "Relu", (), "a", 1.23456e-6, 1e-6, 1e-5),
        NodeDeviation("b", "Pad", ("a",), None, None, 0.0, 0.0, "no layer"),
        NodeDeviation("c", "Mean", ("b",), "c", float("inf"), 1e-6, 1e-5),
    ]
    assert layers_line("m", "", nodes)["observed"] == [1.23e-06, None, "inf"]
