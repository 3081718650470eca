"""Reading inner layers: which layer is compared with which node, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.candidate import CandidateRun, RunConfig
from conformance.opencv import run as parent
from conformance.opencv.capability import probe_in_child
from conformance.opencv.importers.tensorflow import absent, carriers
from conformance.opencv.layers import LayerSamples, layer_holding
from conformance.opencv.run import run_candidate
from conformance.pack.format import Pack
from conformance.pack.sampling import node_seed, sampled_values

from .tiny import tiny_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The tiny network's pack, large enough for its layers to be sampled."""
    return tiny_pack(tmp_path_factory.mktemp("packs"), size=32)


@pytest.fixture(scope="module")
def runs(pack: Pack) -> list[CandidateRun]:
    """A run with layers on each engine."""
    configs = [RunConfig(engine=name, layers=True) for name in probe_in_child()["engines"]]
    return [run_candidate(pack, config) for config in configs]


def test_layers_equal_the_truth(pack: Pack, runs: list[CandidateRun]) -> None:
    """Each layer's samples equal NumPy's float64 activation of the node it is compared with."""
    assert any(np.prod(layer.shape) > len(layer.f64) for layer in pack.layers())
    for run in runs:
        assert not run.failures, str(run.failure)
        compared = [layer for layer in pack.layers() if layer.node in run.layer_samples]
        assert len(compared) == 9
        for layer in compared:
            samples = run.layer_samples[layer.node]
            assert samples.shape == layer.f64.shape
            np.testing.assert_allclose(samples, layer.f64, atol=1e-4, err_msg=layer.node)


def test_folded_layers_carry_the_second_node(runs: list[CandidateRun]) -> None:
    """Conv2D, Mul and MatMul layers are compared with the addition folded into them."""
    for run in runs:
        moved = {layer: node for layer, node in run.carriers.items() if layer != node}
        assert moved == {
            "conv1/Conv2D": "conv1/BiasAdd",
            "bn/mul": "bn/add",
            "head/MatMul": "head/BiasAdd",
        }
        assert set(run.layers_absent) == set(moved)
        assert "folded into bn/add" in run.layers_absent["bn/mul"]


def test_reading_layers_leaves_the_outputs(pack: Pack, runs: list[CandidateRun]) -> None:
    """Primary outputs are the untapped net's, and tapping moves them by rounding at most."""
    for run in runs:
        plain = run_candidate(pack, RunConfig(engine=run.config.engine))
        assert plain.outputs is not None
        assert run.outputs is not None
        assert np.array_equal(plain.outputs, run.outputs)
        assert run.tap_shift is not None
        assert run.tap_shift < 1e-5


def entry(node: str, op: str, *inputs: str) -> dict[str, Any]:
    """Return a manifest's layer entry."""
    return {"node": node, "op": op, "inputs": list(inputs)}


def test_addition_of_two_branches_is_not_folded() -> None:
    """An addition of two activations, or after a node used twice, is never mapped to a layer."""
    entries = [
        entry("a", "Conv2D", "x", "kernel"),
        entry("b", "Conv2D", "x", "kernel"),
        entry("both", "AddV2", "a", "b"),
        entry("twice", "AddV2", "b", "constant"),
    ]
    held = carriers(["a", "b"], entries)
    assert held == {"a": "a", "b": "b"}
    assert "no layer of this AddV2" in absent(held, entries)["both"]


def test_node_behind_shape_changes_is_found() -> None:
    """Logits that end in a Reshape or Identity OpenCV drops are read from the layer before it."""
    entries = [
        entry("conv", "Conv2D", "x", "kernel"),
        entry("bias", "BiasAdd", "conv", "constant"),
        entry("flat", "Reshape", "bias", "shape"),
        entry("logits", "Identity", "flat"),
        entry("lost", "Relu", "logits"),
    ]
    held = carriers(["conv"], entries)
    assert layer_holding(held, entries, "logits") == "conv"
    with pytest.raises(ValueError, match="'lost'"):
        layer_holding(held, entries, "lost")


@pytest.mark.parametrize(
    ("node_shape", "turn"),
    [
        ((2, 4, 5, 3), lambda a: a.transpose(2, 0, 1)[None]),
        ((2, 4, 4, 4), lambda a: a.transpose(2, 0, 1)[None]),
        ((2, 7), lambda a: a[None]),
        ((2, 7), lambda a: a[None, :, None, None]),
        ((2, 1, 1, 7), lambda a: a.reshape(1, 7)),
        ((2, 1, 1, 7), lambda a: a.reshape(1, 7, 1, 1)),
        ((2, 4, 5, 3), lambda a: a[None]),
    ],
    ids=["nchw", "cube", "vector", "pooled", "flattened", "unit", "nhwc"],
)
def test_samples_are_in_tensorflows_order(node_shape: tuple[int, ...], turn: Any) -> None:
    """Samples of an output in any of OpenCV's layouts are those of the NHWC activation."""
    whole = np.random.RandomState(0).standard_normal(node_shape).astype(np.float32)
    samples = LayerSamples([{"node": "n", "shape": node_shape}])
    for image in range(2):
        samples.add(image, "n", turn(whole[image]))
    assert not samples.wrong
    assert np.array_equal(samples.samples["n"], sampled_values(whole, node_seed("n")))


def test_wrong_shape_is_reported() -> None:
    """An output that cannot be the node's is reported with both shapes and gives no samples."""
    samples = LayerSamples([{"node": "n", "shape": (2, 4, 5, 3)}])
    samples.add(0, "n", np.zeros((1, 3, 4, 4), np.float32))
    assert "[1, 3, 4, 4] in OpenCV, [2, 4, 5, 3]" in samples.wrong["n"]
    samples = LayerSamples([{"node": "n", "shape": (2, 4, 5, 3)}])
    samples.add(0, "n", np.zeros((1, 4, 3, 5), np.float32))
    assert "n" in samples.wrong


def test_layers_are_the_same_in_portions(
    pack: Pack, runs: list[CandidateRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is read again for each of its layers hands out the same values."""
    monkeypatch.setattr(parent, "TAP_BYTES", 1)
    for whole in runs:
        parts = run_candidate(pack, whole.config)
        assert not parts.failures, str(parts.failure)
        assert parts.layer_samples.keys() == whole.layer_samples.keys()
        for node, values in whole.layer_samples.items():
            np.testing.assert_array_equal(parts.layer_samples[node], values)
