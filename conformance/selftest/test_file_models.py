"""ONNX and TFLite files as they are deployed: judged against their own runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Optional

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from conformance.candidate import CandidateRun, RunConfig
from conformance.errors import ConformanceError
from conformance.inputs.preprocessing import MODES
from conformance.opencv.capability import probe_in_child
from conformance.opencv.run import run_candidate
from conformance.own_models import own_model
from conformance.pack import formats
from conformance.pack.builder import require_builder
from conformance.pack.focus import focus_pack
from conformance.pack.format import Pack, open_pack
from conformance.pack.request import PackRequest
from conformance.results.cases import read_results
from conformance.runtimes import double_onnx, windows
from conformance.runtimes.build import build_file_pack
from conformance.verdict.checks import judge_run
from conformance.verdict.limits import Limits
from conformance.verdict.nodes import first_bad

from .conftest import once

JUDGED = ("flowers.onnx", "last.onnx", "flowers.tflite", "steps.tflite", "whole.tflite")
CLASSES, SIDE = 7, 24
CHANNELS = 8


def weights() -> dict[str, Any]:
    """Return the small network's weights: a convolution, a batch norm and a matrix."""
    random = np.random.default_rng(0)
    return {
        "kernel": random.standard_normal((CHANNELS, 3, 3, 3)) / 5,
        "scale": random.uniform(0.7, 1.3, CHANNELS),
        "offset": random.standard_normal(CHANNELS) / 5,
        "mean": random.standard_normal(CHANNELS) / 5,
        "variance": random.uniform(0.5, 1.5, CHANNELS),
        "matrix": random.standard_normal((CHANNELS, CLASSES)),
        "bias": random.standard_normal(CLASSES) / 5,
    }


def network(
    path: Path,
    shape: Optional[Sequence[Any]] = ("N", 3, SIDE, SIDE),
    values: Optional[dict[str, Any]] = None,
    layout: str = "NCHW",
    ends: Sequence[str] = ("prob",),
) -> Path:
    """Write a small classifier as an ONNX file, opset 13, its batch norm after a convolution."""
    given = values or weights()
    node = helper.make_node
    nodes = [node("Transpose", ["images"], ["turned"], "turn", perm=[0, 3, 1, 2])]
    image = "turned" if layout == "NHWC" else "images"
    nodes = nodes if layout == "NHWC" else []
    statistics = ["scale", "offset", "mean", "variance"]
    nodes += [
        node("Conv", [image, "kernel"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["conv", *statistics], ["bn"], "bn"),
        node("Relu", ["bn"], ["relu"], "relu"),
        node("MaxPool", ["relu"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["pool"], ["gap"], "gap"),
        node("Flatten", ["gap"], ["flat"], "flat"),
        node("Gemm", ["flat", "matrix", "bias"], ["logits"], "dense"),
        node("Softmax", ["logits"], ["prob"], "softmax", axis=1),
    ]
    values_of = {name: np.asarray(value, np.float32) for name, value in given.items()}
    batch = shape[0] if shape else "N"
    graph = helper.make_graph(
        nodes,
        "flowers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, [batch, CLASSES]) for end in ends],
        [numpy_helper.from_array(value, name) for name, value in values_of.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def answer(images: Any) -> Any:
    """Return the float64 softmax of the small network for images [N, H, W, 3], by NumPy."""
    w = {name: np.float32(value).astype(np.float64) for name, value in weights().items()}
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    x = np.einsum("nhwcij,ocij->nhwo", seen, w["kernel"])
    epsilon = float(np.float32(1e-5))
    x = (x - w["mean"]) / np.sqrt(w["variance"] + epsilon) * w["scale"] + w["offset"]
    x = np.maximum(x, 0)
    n, side = len(x), SIDE // 2
    x = x.reshape(n, side, 2, side, 2, CHANNELS).max(axis=(2, 4)).mean(axis=(1, 2))
    powers = np.exp(x @ w["matrix"] + w["bias"])
    return powers / powers.sum(axis=1, keepdims=True)


def build(path: Path, packs: Path, size: Optional[tuple[int, int]] = None) -> Pack:
    """Build the pack of a file; inputs of ONNX files go from -1 to 1, the others' to 255."""
    mode = MODES["tf" if path.suffix == ".onnx" else "none"]
    own = replace(own_model(path), preprocess=mode, size=size)
    return build_file_pack(PackRequest(own.name, str(path), own=own), packs)


def runs(pack: Pack) -> list[CandidateRun]:
    """Return OpenCV's answers to the pack, on each engine."""
    importer = pack.manifest.importer
    return [run_candidate(pack, RunConfig(importer, e, layers=True)) for e in _engines()]


@cache
def _engines() -> list[str]:
    return list(probe_in_child()["engines"])


def wrong(pack: Pack, run: CandidateRun) -> list[str]:
    """Return the failures and the metrics that are not what they should be."""
    judged = judge_run(Limits(str(run.version)), pack, run)
    return [*map(str, run.failures), *(j.metric for j in judged if not j.passed)]


@pytest.fixture(scope="session")
def files(shared: Path) -> Path:
    """A folder with small ONNX and TFLite files; those in whole numbers among them."""
    return once(shared / "files", _write_files)


def _write_files(folder: Path) -> None:
    network(folder / "flowers.onnx")
    network(folder / "last.onnx", ["N", SIDE, SIDE, 3], layout="NHWC")
    tf = pytest.importorskip("tensorflow")
    layers = tf.keras.layers

    def keras(activation: str) -> Any:
        tf.keras.utils.set_random_seed(1)
        images = layers.Input((SIDE, SIDE, 3), batch_size=1)
        x = layers.Conv2D(CHANNELS, 3, padding="same", activation=activation)(images)
        x = layers.AveragePooling2D(SIDE)(x)
        x = layers.Reshape((CLASSES,))(layers.Conv2D(CLASSES, 1)(x))
        return tf.keras.Model(images, layers.Softmax()(x))

    def write(name: str, activation: str, whole: Optional[Any] = None, ends: Any = None) -> None:
        converter = tf.lite.TFLiteConverter.from_keras_model(keras(activation))
        if whole is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            random = np.random.default_rng(0)
            converter.representative_dataset = lambda: (
                [random.uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32)] for _ in range(9)
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = whole
        (folder / name).write_bytes(converter.convert())

    write("flowers.tflite", "relu")
    write("steps.tflite", "relu6", tf.float32)
    write("whole.tflite", "relu", tf.int8)
    _write_odd(tf, folder)


def _write_odd(tf: Any, folder: Path) -> None:
    """Write a TFLite file with two inputs, and one with an operator that is none of TFLite's."""
    image = tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32)

    def write(name: str, function: Any, *specs: Any) -> None:
        concrete = tf.function(function).get_concrete_function(*specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        converter.allow_custom_ops = True
        (folder / name).write_bytes(converter.convert())

    write("two.tflite", lambda a, b: tf.reduce_mean(a + b, [1, 2]), image, image)
    write("custom.tflite", lambda a: tf.linalg.det(a[:, :3, :3, 0])[:, None], image)


@pytest.fixture(scope="session")
def packs(files: Path, shared: Path) -> Path:
    """The packs of these files."""

    def make(root: Path) -> None:
        for name in JUDGED:
            build(files / name, root)

    return once(shared / "file-packs", make)


def opened(packs: Path, name: str) -> Pack:
    """Return the one pack of a model."""
    (folder,) = (f for f in (packs / name).iterdir() if f.is_dir())
    return open_pack(folder)


@pytest.mark.parametrize("name", ["flowers.onnx", "last.onnx"])
def test_truth_is_that_of_float64(packs: Path, name: str) -> None:
    """The truth of an ONNX file is what NumPy computes in float64, its batch norm included."""
    pack = opened(packs, name)
    expected = answer(pack.load("inputs"))
    np.testing.assert_allclose(pack.load("outputs_f64"), expected, rtol=1e-12)
    strayed = np.abs(pack.load("outputs_f32") - expected).max()
    assert 0 < strayed < 1e-6
    assert pack.kind == "softmax"
    assert any("onnx's reference evaluator in float64" in note for note in pack.manifest.notes)


def test_evaluator_that_errs_is_not_used(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where float64 disagrees with the runtime, the truth is told from the runtime's answers."""
    convolve = windows.convolve
    monkeypatch.setattr(double_onnx, "convolve", lambda *a, **how: 1.1 * convolve(*a, **how))
    pack = build(files / "flowers.onnx", tmp_path)
    np.testing.assert_allclose(pack.load("outputs_f64"), answer(pack.load("inputs")), atol=1e-6)
    (said,) = (note for note in pack.manifest.notes if note.startswith("truth"))
    assert "mean of" in said
    assert "computes 'conv' otherwise" in said
    assert not any(wrong(pack, run) for run in runs(pack))


@pytest.mark.parametrize("name", ["flowers.onnx", "last.onnx", "flowers.tflite", "steps.tflite"])
def test_opencv_agrees(packs: Path, name: str) -> None:
    """OpenCV's importer of the format answers as the file's runtime does, on each engine."""
    pack = opened(packs, name)
    for run in runs(pack):
        assert wrong(pack, run) == []
        assert len(run.layer_samples) >= 4
        assert (run.batch is None) == (name.endswith("tflite"))


def test_fault_is_found_at_its_tensor(packs: Path, tmp_path: Path) -> None:
    """A weight off by a hundredth in the file is localised at the tensor it is used for."""
    pack = opened(packs, "flowers.onnx")
    folder = tmp_path / "pack"
    shutil.copytree(pack.path, folder)
    values = weights()
    values["scale"] = values["scale"] * 1.01
    network(folder / "model.onnx", values=values)
    faulty = Pack(folder, pack.manifest)
    for run in runs(faulty):
        bad = first_bad(Limits(str(run.version)).profile(faulty, run))
        assert bad is not None
        assert bad.node in ("bn", "relu")


def test_nodes_are_read_on_another_input(packs: Path, tmp_path: Path) -> None:
    """A file's runtime gives the tensors of any one input, for a fault that shows on that one."""
    pack = opened(packs, "flowers.onnx")
    white = pack.manifest.inputs.index("white")
    focused = focus_pack(pack, white, tmp_path / "focus")
    by_node = {layer.node: layer for layer in focused.layers()}
    (truth,) = pack.load("outputs_f64")[white : white + 1]
    assert list(by_node) == [entry["node"] for entry in pack.manifest.layers]
    np.testing.assert_allclose(by_node["prob"].f64[:CLASSES], truth, rtol=1e-12)


def test_whole_numbers_are_judged_in_steps(packs: Path) -> None:
    """An answer two steps of the scale off passes, one three steps off does not."""
    pack = opened(packs, "steps.tflite")
    step = pack.step
    assert step == 1 / 256
    run = runs(pack)[-1]
    truth = pack.load("outputs_f64")
    for steps, expected in ((2, []), (3, ["output_linf", "logits_linf"])):
        answers = truth.astype(np.float32)
        answers[0, 0] += steps * np.float32(step)
        found = wrong(pack, replace(run, outputs=answers, logits=answers[::4], repeat=answers[:1]))
        assert [metric for metric in found if metric.endswith("linf")] == expected


def test_whole_numbers_that_opencv_refuses_are_told(packs: Path) -> None:
    """Where OpenCV does not read a quantised file, the failure is its own reason and node."""
    pack = opened(packs, "whole.tflite")
    assert pack.load("inputs").dtype == np.int8
    for run in runs(pack):
        assert run.failure is not None
        assert run.failure.stage == "parse"
        assert "Lookup table for RELU" in str(run.failure)


def custom(path: Path) -> None:
    """Write an ONNX file whose softmax is of someone's own."""
    model = onnx.load(str(network(path)))
    model.graph.node[-1].domain = "com.example"
    onnx.save(model, str(path))


def two_inputs(path: Path) -> None:
    """Write an ONNX file that takes a second image."""
    model = onnx.load(str(network(path)))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1]))
    onnx.save(model, str(path))


def weights_beside(path: Path) -> None:
    """Write an ONNX file whose weights are in another one."""
    model = onnx.load(str(network(path)))
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text.onnx": (lambda path: path.write_text("hello"), "is no ONNX file"),
    "empty.onnx": (lambda path: path.write_bytes(b""), "is no ONNX file"),
    "text.tflite": (lambda path: path.write_text("hello, TFLite"), "is no TFLite file"),
    "cut.tflite": (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3\0\0"), "can't read it"),
    "custom.onnx": (custom, "the custom operator 'Softmax' of 'com.example'"),
    "two.onnx": (two_inputs, r"takes 2 inputs \('images', 'mask'\)"),
    "beside.onnx": (weights_beside, "keeps weights in other files"),
    "four.onnx": (lambda path: network(path, [4, 3, SIDE, SIDE]), "exactly 4 images at once"),
    "open.onnx": (lambda path: network(path, ["N", "C", "H", "W"]), "number of channels"),
    "flat.onnx": (lambda path: network(path, ["N", 3]), "expected float32 images"),
    "none.onnx": (lambda path: network(path, None), "how many axes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_onnx_or_tflite_is_one_clear_error(name: str, tmp_path: Path) -> None:
    """A file that can't be judged is named, with what is wrong with it, and leaves no pack."""
    make, reason = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ConformanceError, match=reason) as told:
        build(tmp_path / name, tmp_path / "packs")
    assert name in str(told.value)
    assert not list((tmp_path / "packs").glob("*/*/pack.json"))


@pytest.mark.parametrize(
    ("name", "reason"), [("two.tflite", "takes 2 inputs"), ("custom.tflite", "custom op")]
)
def test_bad_tflite_is_one_clear_error(files: Path, tmp_path: Path, name: str, reason: str) -> None:
    """TFLite files of several inputs or with custom operators are refused by name."""
    with pytest.raises(ConformanceError, match=reason) as told:
        build(files / name, tmp_path)
    assert name in str(told.value)


def test_size_that_the_file_does_not_take(files: Path, tmp_path: Path) -> None:
    """A size other than the file's own is refused, and one that is left open is taken.

    OpenCV's classic engine reads no file of an open size: its reason is told.
    """
    with pytest.raises(ConformanceError, match=f"takes images of {SIDE} x {SIDE} only"):
        build(files / "flowers.onnx", tmp_path, (30, 30))
    pack = build(network(tmp_path / "any.onnx", ["N", 3, "H", "W"]), tmp_path / "p", (SIDE, SIDE))
    assert pack.load("inputs").shape == (8, SIDE, SIDE, 3)
    for run in runs(pack):
        failed = [failure.stage for failure in run.failures]
        assert failed == (["parse"] if run.config.engine == "classic" else [])


def test_tensorflow_answers_for_tflite_without_litert(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where LiteRT is not installed TensorFlow's interpreter answers, and the pack says so."""
    entry = replace(formats.FORMATS["tflite"], runtime=(formats.TENSORFLOW,))
    monkeypatch.setitem(formats.FORMATS, "tflite", entry)
    pack = build(files / "flowers.tflite", tmp_path)
    assert next(iter(pack.manifest.producer)).startswith(("tensorflow", "tf"))
    assert any("agrees with TensorFlow" in note for note in pack.manifest.notes)


def test_missing_runtime_says_what_to_install(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ONNX Runtime a pack can't be built: the error names it and the extra that has it."""
    entry = replace(formats.FORMATS["onnx"], runtime=(("no-such-runtime",),))
    monkeypatch.setitem(formats.FORMATS, "onnx", entry)
    own = own_model(files / "flowers.onnx")
    with pytest.raises(ConformanceError, match=r"no-such-runtime.*pip install -e '.\[onnx\]'"):
        require_builder(PackRequest(own.name, own=own))


def command(cwd: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a module of this Python in `cwd`; code: run before it."""
    module, *rest = arguments
    script = f"{code}\nimport sys, runpy\nsys.argv = {[module, *rest]}\n"
    script += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_pytest_judges_the_file(files: Path, packs: Path, tmp_path: Path) -> None:
    """pytest --model builds the pack, judges it by its own importer only, and writes results."""
    shutil.copy(files / "flowers.onnx", tmp_path)
    suite = ["pytest", "--pyargs", "conformance.suite", "-p", "no:cacheprovider"]
    suite += ["--packs=new", "--model", "flowers.onnx", "--results=results", "-k"]
    suite += ["flowers and (top1 or batch or nodes or own_blob or frozen)"]
    # Where TensorFlow can't be imported: the file needs none.
    done = command(tmp_path, *suite, code="import sys; sys.modules['tensorflow'] = None")
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "flowers.onnx is judged as it stands" in told
    assert "output 'prob': a softmax of 7 classes" in told
    found = [read_results(file) for file in sorted((tmp_path / "results").glob("*.jsonl"))]
    assert found
    for results in found:
        assert results.header["importer"] == "onnx"
        outcomes = {case["id"]: case["outcome"] for case in results.cases}
        assert (
            outcomes["test_agreement.py::test_batch_equals_singles[flowers.onnx-onnx]"] == "passed"
        )


def test_other_importer_is_refused(files: Path, packs: Path) -> None:
    """An importer asked for that does not read the file is one error before any test."""
    suite = ["pytest", "--pyargs", "conformance.suite", "-p", "no:cacheprovider"]
    suite += [f"--packs={packs}", "--model", "flowers.onnx", "--importer=tensorflow"]
    done = command(files, *suite)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "flowers.onnx is judged as it stands, an ONNX file" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_compares_with_the_runtime(files: Path, packs: Path) -> None:
    """predict answers by OpenCV and by ONNX Runtime, on a file that takes channels last too."""
    given = ["conformance", "predict", "last.onnx", f"--packs={packs}", "--json"]
    given += ["--model-preprocess", "tf", "--model-size", str(SIDE), str(SIDE)]
    done = command(files, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["runtime"]["version"]
    assert found["difference"]["l1"] < 1e-5
