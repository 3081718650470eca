"""A fault on an input whose nodes the pack has not: it is localised there all the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np

from conformance import session
from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.localize.diagnosis import diagnose, unread_input, where_bad
from conformance.opencv.run import run_candidate
from conformance.pack import focus as focusing
from conformance.pack.focus import focus_pack
from conformance.pack.format import GRAPH, Pack
from conformance.pack.sampling import SAMPLED, node_seed, sampled_values
from conformance.session import Choices, Session
from conformance.verdict.nodes import first_bad

from .graphdef import changed, write_graph
from .tiny import activations, graph_nodes, tiny_inputs, tiny_pack, tiny_weights

# The one input that has values above 6 before the ReLU6, and not one of SAMPLED.
BRIGHT = 5


@pytest.fixture
def clipless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Session, Pack, CandidateRun]:
    """Session, pack and run of an OpenCV that takes ReLU6 for ReLU."""

    def wrong(pack: Pack, config: RunConfig, timeout: float, *_: object) -> CandidateRun:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copytree(pack.path, folder, dirs_exist_ok=True)
        (folder / GRAPH).unlink()
        write_graph(folder / GRAPH, changed(graph_nodes(tiny_weights()), "conv2/Relu6", op="Relu"))
        return run_candidate(Pack(folder, pack.manifest), config, timeout)

    monkeypatch.setattr(session, "run_candidate", wrong)
    pack = tiny_pack(tmp_path / "packs")
    asked = Session(Choices(tmp_path / "packs", engines=["classic"]))
    return asked, pack, asked.run(pack, asked.variants()[0])


def test_fault_on_an_unread_input_is_localised(
    clipless: tuple[Session, Pack, CandidateRun],
) -> None:
    """A missing clip that shows on one input only, whose nodes the pack has not, is named."""
    asked, pack, run = clipless
    assert first_bad(asked.limits.profile(pack, run)) is None
    assert unread_input(asked, pack, run) == BRIGHT
    focused, alone = where_bad(asked, pack, run)
    bad = first_bad(asked.limits.profile(focused, alone))
    assert bad is not None
    assert bad.node == "conv2/Relu6"
    text = "\n".join(diagnose(asked, pack, run.config))
    assert "on 'noise0' and 'noise4' every node, read without fusion and Winograd, stays" in text
    assert "on 'noise5' first node out of the noise" in text
    assert "'conv2/Relu6', Relu6" in text


def test_without_tensorflow_it_is_told(
    clipless: tuple[Session, Pack, CandidateRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TensorFlow the diagnosis says which inputs were read, and what to install."""

    def missing(flavour: str, task: str) -> None:
        raise ConformanceError(f"{task} needs TensorFlow: python -m pip install …")

    asked, pack, run = clipless
    monkeypatch.setattr(focusing, "require_tensorflow", missing)
    text = "\n".join(diagnose(asked, pack, run.config))
    assert "on 'noise0' and 'noise4' every node" in text
    assert "not read on the worst input: reading the nodes on the input 'noise5' needs" in text


def test_right_network_has_no_unread_input(tmp_path: Path) -> None:
    """Nothing is read again where the outputs stray no farther than they may."""
    pack = tiny_pack(tmp_path)
    asked = Session(Choices(tmp_path, engines=["classic"]))
    run = asked.run(pack, asked.variants()[0])
    assert unread_input(asked, pack, run) is None
    assert where_bad(asked, pack, run) == (pack, run)


def test_pack_of_one_input_has_its_truth(tmp_path: Path) -> None:
    """Inputs, outputs and each node's samples are that input's, as NumPy computes them."""
    pack = tiny_pack(tmp_path / "packs")
    focused = focus_pack(pack, BRIGHT, tmp_path / "one")
    image = tiny_inputs()[BRIGHT : BRIGHT + 1]
    truth = activations(image, tiny_weights())
    assert focused.manifest.inputs[SAMPLED] == ["noise5"]
    np.testing.assert_array_equal(focused.load("inputs"), image)
    np.testing.assert_allclose(focused.load("outputs_f64"), truth["probabilities"], rtol=1e-12)
    layers = list(focused.layers())
    assert [layer.node for layer in layers] == [layer.node for layer in pack.layers()]
    for layer in layers:
        samples: Any = sampled_values(truth[layer.node], node_seed(layer.node))
        np.testing.assert_allclose(layer.f64, samples, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.f32, samples, rtol=1e-3, atol=1e-4)


def test_failing_tensorflow_is_told(tmp_path: Path) -> None:
    """A graph that TensorFlow can't run is one error, with the model, the input and the reason."""
    pack = tiny_pack(tmp_path / "packs")
    (pack.path / GRAPH).write_bytes(b"no graph")
    with pytest.raises(ConformanceError, match=r"could not run mobilenet.*'noise5'(.|\n)*graph"):
        focus_pack(pack, BRIGHT, tmp_path / "one")
