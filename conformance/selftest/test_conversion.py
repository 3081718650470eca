"""Conversions to TFLite and ONNX: what they hold, how they are kept, and OpenCV reading them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

import numpy as np

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.opencv.capability import probe_in_child
from conformance.opencv.importers import IMPORTERS as READERS
from conformance.opencv.run import run_candidate
from conformance.pack import conversion
from conformance.pack.conversion import (
    Conversion,
    find_conversion,
    open_conversion,
    question,
    require_conversion,
    require_converter,
    takes_batches,
    write_conversion,
)
from conformance.pack.format import Layer, Pack, open_pack
from conformance.pack.formats import FORMATS
from conformance.pack.request import runtime_title
from conformance.reference import formats, graph
from conformance.reference.formats import build_conversion, onnx
from conformance.reference.formats.match import Matcher
from conformance.runtimes import RUNTIMES
from conformance.session import Choices, Session
from conformance.verdict.nodes import first_bad

from .graphdef import constant
from .test_localize import wrong_scale
from .tiny import graph_nodes, tiny_pack, tiny_weights

IMPORTERS = tuple(FORMATS)
# What the converters leave of the tiny network's 12 nodes, each in a tensor of its own.
TENSORS = {
    "tflite": {"conv1/Relu", "pool/MaxPool", "conv2/Relu6", "gap/Mean", "head/BiasAdd"},
    "onnx": {"conv1/Relu", "pool/MaxPool", "conv2/Relu6", "head/MatMul", "head/BiasAdd"},
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The tiny network's pack with both conversions."""
    made = tiny_pack(tmp_path_factory.mktemp("packs"))
    for importer in IMPORTERS:
        build_conversion(made, importer)
    return made


@pytest.fixture
def own(pack: Pack, tmp_path: Path) -> Pack:
    """A copy of the pack, to be damaged."""
    root = tmp_path / "packs"
    shutil.copytree(pack.path.parent.parent, root)
    return open_pack(root / pack.path.relative_to(pack.path.parent.parent))


@pytest.fixture(scope="module")
def runs(pack: Pack) -> list[CandidateRun]:
    """OpenCV's answers by each importer of a conversion, on each engine."""
    engines = probe_in_child()["engines"]
    return [
        run_candidate(pack, RunConfig(importer=importer, engine=engine, layers=True))
        for importer in IMPORTERS
        for engine in engines
    ]


def test_lost_tensor_is_folded_into_the_next_one_of_the_file() -> None:
    """A node that OpenCV gives no layer is spoken for by the next that the file has a tensor of."""
    inputs = {"product": ["x"], "bias": ["product"], "sum": ["bias"], "lost": ["sum"]}
    entries = [{"node": node, "op": "Op", "inputs": names} for node, names in inputs.items()]
    tensors = [{"tensor": node, "node": node} for node in ("product", "sum", "lost")]
    reasons = READERS["onnx"].absent({"sum": "sum"}, entries, tensors)
    assert reasons == {
        "product": "Op is folded into sum",
        "bias": "Op is folded into another operation of the file",
        "lost": "OpenCV makes no layer of this Op",
    }


def test_every_importer_has_what_the_tables_promise() -> None:
    """Each name of pack/formats.py has its module on both sides, with the names that are used."""
    assert list(READERS) == ["tensorflow", *IMPORTERS]
    for module in READERS.values():
        names = {"READER", "BEFORE_ENGINE", "read", "write_cut", "carriers", "absent"}
        assert names <= set(dir(module))
    assert list(formats.CONVERTERS) == list(IMPORTERS)
    assert all(callable(module.convert) for module in formats.CONVERTERS.values())
    for module in RUNTIMES.values():
        assert {"describe", "operations", "run", "inference", "double"} <= set(dir(module))


@pytest.mark.parametrize("importer", IMPORTERS)
def test_conversion_is_faithful(pack: Pack, importer: str) -> None:
    """The file's own runtime answers as float64 does, and no tensor of it strays farther."""
    converted = require_conversion(pack, importer)
    np.testing.assert_allclose(converted.outputs(), pack.load("outputs_f64"), atol=1e-5)
    strays = converted.manifest.strays
    assert strays["observed"] < 4 * strays["allowed"]


@pytest.mark.parametrize("importer", IMPORTERS)
def test_tensors_are_named_after_the_nodes_they_equal(pack: Pack, importer: str) -> None:
    """The manifest pairs the file's tensors with the nodes whose values they hold."""
    nodes = [entry["node"] for entry in require_conversion(pack, importer).manifest.tensors]
    assert TENSORS[importer] | {"probabilities"} <= set(nodes)
    # Both converters fold the batch norm's addition, or its multiplication, into something.
    assert len(set(nodes)) < len(pack.manifest.layers)


def layer(node: str, values: Any, *inputs: str) -> Layer:
    """Return a node of the shape and the values of one image, all of them sampled."""
    flat = values.reshape(1, -1)
    samples = np.concatenate([flat[0], flat.max(axis=1), flat.min(axis=1)])
    return Layer(node, "Relu", inputs, values.shape, samples.astype(np.float32), samples)


def test_value_decides_over_name() -> None:
    """A tensor called after one node that has another's values is that other one, or none."""
    random = np.random.RandomState(0)
    first, second = (random.standard_normal((1, 4, 6, 3)) for _ in range(2))
    matcher = Matcher([layer("first", first), layer("second", second)])
    channels_first = second.transpose(0, 3, 1, 2).astype(np.float32)
    stray = (first + 0.1).astype(np.float32)
    matcher.pair({"first;x": channels_first, "second:0": stray})
    assert matcher.node_of == {"first;x": "second"}
    matcher.add(0, {"first;x": channels_first})
    assert matcher.strays(lambda f32, f64: 1.0)["observed"] < 1e-6


def test_name_decides_between_equal_values() -> None:
    """Of two nodes with the same values, as after a ReLU of positive ones, the named one counts."""
    value = np.abs(np.random.RandomState(0).standard_normal((1, 4, 6, 3)))
    for named in ("first", "second"):
        matcher = Matcher([layer("first", value), layer("second", value)])
        matcher.pair({f"{named}:0": value.astype(np.float32)})
        assert matcher.node_of == {f"{named}:0": named}


def test_dropped_addition_is_still_spoken_for() -> None:
    """A tensor stands for the node after its own too, where that adds zeros and has no tensor."""
    value = np.random.RandomState(0).standard_normal((1, 40))
    nodes = [layer("MatMul", value), layer("BiasAdd", value, "MatMul")]
    nodes += [layer("Relu", np.maximum(value, 0), "BiasAdd")]
    single = value.astype(np.float32)
    for tensors, expected in (
        ({"MatMul:0": single}, {"MatMul:0": "BiasAdd"}),
        ({"MatMul:0": single, "BiasAdd:0": single}, {"MatMul:0": "MatMul", "BiasAdd:0": "BiasAdd"}),
    ):
        matcher = Matcher(nodes)
        matcher.pair(tensors)
        assert matcher.node_of == expected


def test_opencv_agrees_layer_by_layer(pack: Pack, runs: list[CandidateRun]) -> None:
    """Each importer and engine answers every input, and each layer has its node's values."""
    truth = {layer.node: layer.f64 for layer in pack.layers()}
    for run in runs:
        assert not run.failures, str(run.failure)
        assert run.outputs is not None
        np.testing.assert_allclose(run.outputs, pack.load("outputs_f64"), atol=1e-5)
        assert TENSORS[run.config.importer] - {"head/MatMul"} <= run.layer_samples.keys()
        for node, samples in run.layer_samples.items():
            np.testing.assert_allclose(samples, truth[node], atol=1e-4, err_msg=node)
        assert (run.batch is not None) == takes_batches(run.config.importer)


def test_every_node_is_spoken_for(pack: Pack, runs: list[CandidateRun]) -> None:
    """A node without a layer was folded, by the converter or by OpenCV; nothing is lost."""
    session = Session(Choices(pack.path.parent.parent))
    for run in runs:
        assert run.layers_absent
        assert all("is folded into" in reason for reason in run.layers_absent.values())
        assert first_bad(session.limits.profile(pack, run)) is None


def test_fused_activation_hides_nothing(runs: list[CandidateRun]) -> None:
    """The classic engine's layer before a TFLite activation is compared with the node before it."""
    (run,) = (r for r in runs if (r.config.importer, r.config.engine) == ("tflite", "classic"))
    assert "bn/add" in run.layer_samples
    assert "conv1/BiasAdd" in run.layer_samples


@pytest.mark.parametrize("importer", IMPORTERS)
def test_fault_is_found_at_its_node(tmp_path: Path, importer: str) -> None:
    """A batch norm's scale off by a thousandth in the file is localised, on each engine."""
    scale = wrong_scale()["bn__scale"]
    nodes = [
        constant("bn/scale", scale) if node.name == "bn/scale" else node
        for node in graph_nodes(tiny_weights())
    ]
    pack = tiny_pack(tmp_path, nodes=nodes)
    build_conversion(pack, importer)
    session = Session(Choices(tmp_path, importers=[importer]))
    for config in session.variants():
        run = session.run(pack, config)
        bad = first_bad(session.limits.profile(pack, run))
        assert bad is not None
        assert bad.node in ("bn/mul", "bn/add", "conv2/Relu6")


@pytest.mark.parametrize("importer", IMPORTERS)
def test_taps_leave_the_file_as_it_is(pack: Pack, importer: str, tmp_path: Path) -> None:
    """A file with taps has the file's own bytes in it, aligned; an unknown tensor is an error."""
    converted, write_tapped = require_conversion(pack, importer), READERS[importer].write_tapped
    names = [entry["tensor"] for entry in converted.manifest.tensors]
    write_tapped(converted.model_path, names, tmp_path / "tapped")
    before, after = converted.model_path.read_bytes(), (tmp_path / "tapped").read_bytes()
    assert after.find(before) % 64 == 0
    if importer == "tflite":
        with pytest.raises(ValueError, match="no tensor 'nowhere'"):
            write_tapped(converted.model_path, ["nowhere"], tmp_path / "tapped")


def test_pack_is_left_alone(pack: Pack, tmp_path: Path) -> None:
    """A pack with conversions has the manifest and the question of one without."""
    plain = tiny_pack(tmp_path)
    assert plain.manifest.files == pack.manifest.files
    assert question(pack.path, "tensorflow") == open_pack(pack.path).manifest.digest()
    questions = {question(pack.path, name) for name in ("tensorflow", *IMPORTERS)}
    assert len(questions) == 3


def damage(converted: Conversion, how: str) -> str:
    """Damage a conversion; return the name of the file that is to be named."""
    model, manifest = converted.model_path, converted.path / conversion.MANIFEST
    if how == "edited model":
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)
    elif how == "truncated model":
        model.write_bytes(model.read_bytes()[:-100])
    elif how == "no model":
        model.unlink()
    elif how == "edited manifest":
        manifest.write_text(manifest.read_text().replace("conv1/Relu", "conv2/Relu6"))
        return manifest.name
    else:
        manifest.write_text("[]")
        return manifest.name
    return model.name


@pytest.mark.parametrize(
    "how", ["edited model", "truncated model", "no model", "edited manifest", "no manifest"]
)
def test_damage_is_told_and_repaired(own: Pack, how: str) -> None:
    """A damaged conversion is an error that names the file and the command that makes it again."""
    named = damage(require_conversion(own, "tflite"), how)
    with pytest.raises(ConformanceError, match=named) as told:
        run_candidate(own, RunConfig(importer="tflite"))
    assert f"pack build {own.model} --importer tflite --packs" in str(told.value)
    build_conversion(own, "tflite")
    assert open_conversion(own.path / "tflite").model_path.exists()


def test_a_session_checks_a_conversion_once(own: Pack) -> None:
    """What a session has checked serves all of its runs; another session checks it again."""
    choices = Choices(own.path.parent.parent, importers=["onnx"])
    session = Session(choices)
    damage(session.conversion(own, "onnx"), "no manifest")
    assert session.run(own, RunConfig(importer="onnx")).failures == []
    with pytest.raises(ConformanceError, match="conversion"):
        Session(choices).check_conversion(own, "onnx")


def test_conversion_of_another_graph_does_not_count(own: Pack) -> None:
    """After the frozen graph was made anew, its old conversions are as good as none."""
    files = {**own.manifest.files, "frozen_graph.pb": {"sha256": "0" * 64, "bytes": 1}}
    assert find_conversion(own, "onnx") is not None
    manifest = replace(own.manifest, files=files)
    from conformance.pack.sealed import manifest_text

    (own.path / "pack.json").write_text(manifest_text(manifest))
    assert find_conversion(Pack(own.path, manifest), "onnx") is None


def test_runtime_is_told_and_leaves_a_conversion_current(
    own: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion says what answered for it, and counts where another runtime is installed."""
    converted = require_conversion(own, "tflite")
    assert converted.manifest.producer["runtime"] == runtime_title("tflite") == converted.runtime
    other = replace(FORMATS["tflite"], runtime=(("numpy",),))
    monkeypatch.setitem(FORMATS, "tflite", other)
    assert find_conversion(own, "tflite") is not None


def test_unfinished_conversion_leaves_nothing(own: Pack) -> None:
    """A converter that fails leaves the conversion that was there, and no other folder."""

    def fill(folder: Path, _: object) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise ConformanceError("the converter refuses")

    before = sorted(path.name for path in own.path.iterdir())
    with pytest.raises(ConformanceError, match="refuses"):
        write_conversion(own, "onnx", fill)
    assert sorted(path.name for path in own.path.iterdir()) == before
    assert find_conversion(own, "onnx") is not None


def test_missing_converter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tf2onnx the error names it and the extra that has it."""
    lacking = replace(FORMATS["onnx"], packages=("tf2onnx", "no-such-package"))
    monkeypatch.setitem(FORMATS, "onnx", lacking)
    with pytest.raises(ConformanceError) as told:
        require_converter("onnx")
    assert "no-such-package" in str(told.value)
    assert "pip install -e '.[onnx]'" in str(told.value)


def test_refused_graph_is_told(tmp_path: Path) -> None:
    """A graph that the converter refuses is one error with its reason."""
    nodes = [
        replace(node, op="NoSuchOp") if node.name == "conv1/Relu" else node
        for node in graph_nodes(tiny_weights())
    ]
    pack = tiny_pack(tmp_path, nodes=nodes)
    with pytest.raises(ConformanceError, match=r"converting the graph to TFLite failed.*NoSuchOp"):
        build_conversion(pack, "tflite")


def test_large_graph_is_converted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Pack
) -> None:
    """Above a size the converter has a process of its own, and the file is the same."""
    monkeypatch.setattr(formats, "APART", 0)
    other = build_conversion(tiny_pack(tmp_path), "tflite")
    assert (
        other.model_path.read_bytes() == require_conversion(pack, "tflite").model_path.read_bytes()
    )


def test_large_matrices_go_beside_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ONNX file whose matrix was appended to it answers as one that was converted whole."""
    monkeypatch.setattr(onnx, "LARGE", 0)
    monkeypatch.setattr(graph, "LARGE", 0)
    pack = tiny_pack(tmp_path)
    converted = build_conversion(pack, "onnx")
    np.testing.assert_allclose(converted.outputs(), pack.load("outputs_f64"), atol=1e-5)
    assert converted.model_path.read_bytes().endswith(tiny_weights()["head/kernel"].tobytes())
    run = run_candidate(pack, RunConfig(importer="onnx"))
    assert run.outputs is not None
    np.testing.assert_allclose(run.outputs, pack.load("outputs_f64"), atol=1e-5)
