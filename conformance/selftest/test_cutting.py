"""A network cut after one node: fused as the user has it, it shows what reading all nodes hides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.localize.cutting import necks
from conformance.localize.diagnosis import diagnose
from conformance.opencv.capability import probe_in_child
from conformance.opencv.importers import IMPORTERS as READERS
from conformance.opencv.run import run_candidate
from conformance.own_models import own_model
from conformance.pack.conversion import file_for, require_conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS, IMPORTERS
from conformance.session import Choices, Session

from .tiny import tiny_pack

NODES = ("conv1/Relu", "bn/add", "gap/Mean")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The tiny network's pack."""
    return tiny_pack(tmp_path_factory.mktemp("packs"))


@pytest.mark.parametrize("engine", probe_in_child()["engines"])
@pytest.mark.parametrize("importer", IMPORTERS)
def test_cut_reads_the_named_nodes_alone(pack: Pack, importer: str, engine: str) -> None:
    """Each importer and engine reads the part that ends in a node; its samples are right."""
    if importer in FORMATS:
        pytest.importorskip("tensorflow")
        from conformance.reference.formats import build_conversion

        build_conversion(pack, importer)
        held = {entry["node"] for entry in require_conversion(pack, importer).manifest.tensors}
    nodes = NODES if importer not in FORMATS else tuple(held.intersection(NODES))
    run = run_candidate(pack, RunConfig(importer=importer, engine=engine, cut=nodes))
    assert not run.failures, str(run.failure)
    assert set(run.layer_samples) == set(nodes)
    assert len(nodes) > 1
    for layer in pack.layers():
        if layer.node in nodes:
            np.testing.assert_allclose(run.layer_samples[layer.node], layer.f64, atol=1e-4)


@pytest.mark.parametrize("importer", IMPORTERS)
def test_value_that_is_not_there_is_told(tmp_path: Path, importer: str) -> None:
    """Cutting after what the file has not is an error that names it."""
    pack = tiny_pack(tmp_path)
    if importer in FORMATS:
        pytest.importorskip("tensorflow")
        from conformance.reference.formats import build_conversion

        build_conversion(pack, importer)
    with pytest.raises(ValueError, match="nowhere"):
        READERS[importer].write_cut(file_for(pack.path, importer), "nowhere", tmp_path / "part")


def test_necks_are_what_all_values_go_through() -> None:
    """Of a branch that is joined again neither arm is a neck; of three nodes asked for, two are."""
    inputs = {"a": ["x"], "left": ["a"], "right": ["a"], "both": ["left", "right"], "end": ["both"]}
    entries = [{"node": node, "inputs": names} for node, names in inputs.items()]
    assert necks(entries, list(inputs)) == ["a", "both", "end"]
    assert necks(entries, ["left", "both", "end"]) == ["both", "end"]


def write_fused(path: Path) -> None:
    """Write a frozen graph with a sigmoid between a convolution and a batch normalization."""
    tf = pytest.importorskip("tensorflow")
    random = np.random.RandomState(0)

    def weights(*shape: int, scale: float = 0.3) -> object:
        return tf.constant(random.standard_normal(shape) * scale, tf.float32)

    def positive() -> object:
        return tf.constant(random.uniform(0.1, 1, 8), tf.float32)

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [None, 16, 16, 3], "image")
        value = tf.nn.bias_add(tf.nn.conv2d(image, weights(3, 3, 3, 8), 1, "SAME"), weights(8))
        value = tf.nn.sigmoid(value, name="sigmoid")
        norm = tf.compat.v1.nn.fused_batch_norm
        statistics = positive(), weights(8), weights(8), positive()
        value, *_ = norm(value, *statistics, is_training=False, name="norm")
        value = tf.reduce_mean(value, [1, 2])
        value = tf.nn.bias_add(tf.matmul(value, weights(8, 10, scale=1.0)), weights(10))
        tf.nn.softmax(value, name="output")
    path.write_bytes(graph.as_graph_def().SerializeToString())


def test_pair_that_is_fused_is_named(tmp_path: Path) -> None:
    """OpenCV 5.0 fuses a sigmoid away; all nodes are well when all are read, and the pair is named.

    The defect onnx-activation-fused-into-the-normalization-after-it.
    """
    pytest.importorskip("tf2onnx")
    found = probe_in_child()
    if "new" not in found["engines"] or not found["version"].startswith("5.0"):
        pytest.skip("a defect of OpenCV 5.0's new engine")
    write_fused(tmp_path / "fused.pb")
    own = own_model(tmp_path / "fused.pb")
    root = tmp_path / "packs"
    choices = Choices(root, importers=["onnx"], engines=["new"], own={own.name: own})
    session = Session(choices)
    from conformance.reference.build import build_pack
    from conformance.reference.formats import build_conversion

    pack = build_pack(session.request(own.name), root)
    build_conversion(pack, "onnx")
    told = "; ".join(diagnose(session, pack, session.variants()[0]))
    assert "every node stays in the noise" in told
    assert "OpenCV fuses 'sigmoid' with 'norm'" in told
    assert "vanishes while all layers are read" in told
