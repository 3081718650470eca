"""`--importer tensorflow,tflite,onnx`: cases, results and reproducers of several importers."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

import numpy as np

from conformance import session as session_module
from conformance.errors import ConformanceError
from conformance.localize.diagnosis import localize_command
from conformance.localize.reduce import write_reproducer
from conformance.opencv.capability import probe_in_child
from conformance.pack.conversion import write_conversion
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS, IMPORTERS
from conformance.plugin.header import header
from conformance.reference import formats
from conformance.reference.formats import build_conversion
from conformance.reference.graph import read_graph
from conformance.report.matrix import build_matrix
from conformance.results.cases import Results, read_results
from conformance.results.gate import compare
from conformance.results.history import history
from conformance.runtimes import RUNTIMES
from conformance.session import Choices, Session

from .test_plugin import MODEL, run_suite
from .tiny import graph_nodes, tiny_pack, tiny_weights

# OpenCV's ONNX importer makes of a Squeeze, which only the tiny network has among those that go by
# this name, a Reshape to a batch of one: see known_failures.toml.
KEYWORD = f"{MODEL} and not mobilenetv2 and not (onnx-classic and batch)"
ENGINES = probe_in_child()["engines"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good tiny pack, and the results of all importers on it."""
    packs = tmp_path_factory.mktemp("packs")
    tiny_pack(packs, MODEL)
    return packs


@pytest.fixture(scope="module")
def done(root: Path) -> subprocess.CompletedProcess[str]:
    """A run of all importers, which makes the conversions first."""
    arguments = ("--importer", "tensorflow,tflite,onnx", "--results", "results")
    return run_suite(root, *arguments, keyword=KEYWORD)


@pytest.fixture(scope="module")
def results(done: subprocess.CompletedProcess[str], root: Path) -> dict[str, Results]:
    """What that run wrote, by the names of the files without the version."""
    files = (read_results(path) for path in sorted((root / "results").glob("*.jsonl")))
    return {results.path.stem.split("-", 1)[1]: results for results in files}


def test_all_importers_pass(done: subprocess.CompletedProcess[str]) -> None:
    """One run converts the pack and judges importers on every engine; the table fits 80 columns."""
    assert done.returncode == 0, done.stdout
    assert "converting to TFLite" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith(MODEL + " ")]
    assert len(rows) == 3 * len(ENGINES)
    for row in rows:
        assert len(row) <= 80
        assert " passed " in row
    assert "take one image: no batch is judged" in done.stdout


def test_results_keep_importers_apart(results: dict[str, Results]) -> None:
    """Each importer and engine has its file, with its own cases and its own question."""
    names = {f"{prefix}{e}" for prefix in ("", "tflite-", "onnx-") for e in ENGINES}
    assert set(results) == names
    for name, file in results.items():
        importer = name.split("-")[0] if "-" in name else "tensorflow"
        assert file.header["importer"] == importer
        tagged = {case["id"] for case in file.cases if f"[{MODEL}-{importer}" in case["id"]}
        common = {case["id"] for case in file.cases} - tagged
        if importer == "tensorflow":
            assert tagged == set()
        else:
            assert f"test_import.py::test_parse[{MODEL}-{importer}]" in tagged
            assert f"test_freezing.py::test_conversion_equals_keras[{MODEL}-{importer}]" in tagged
            assert all(case.startswith(("test_freezing", "test_preproc")) for case in common)
    questions = {file.header["packs"][MODEL] for file in results.values()}
    assert len(questions) == 3


def test_usual_cases_keep_their_ids(results: dict[str, Results], root: Path) -> None:
    """The cases of the TensorFlow importer are called as in a run without --importer."""
    run_suite(root, "--results", "alone")
    for engine in ENGINES:
        (path,) = (root / "alone").glob(f"*-{engine}.jsonl")
        alone, among = read_results(path), results[engine]
        assert [case["id"] for case in alone.cases] == [case["id"] for case in among.cases]
        assert compare(alone, among) == []


def test_importers_are_not_compared(results: dict[str, Results]) -> None:
    """The gate refuses two importers; history and the report's columns keep them apart."""
    with pytest.raises(ConformanceError, match="can't be compared: importer"):
        compare(results["classic"], results["tflite-classic"])
    assert history(results.values()) == []
    groups = build_matrix(results.values()).groups
    assert sorted(group.setup["importer"] for group in groups) == ["onnx", "tensorflow", "tflite"]


def lacking(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have OpenCV's probe say that it has no such importers, as that of an old version does."""
    found = probe_in_child()
    have = [importer for importer in found["importers"] if importer not in names]
    changed = {**found, "version": "4.6.0", "importers": have}
    monkeypatch.setattr(session_module, "probe_in_child", lambda **_: changed)


def test_importer_that_opencv_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among others it is left out, and the header says so; asked for alone it is an error."""
    lacking(monkeypatch, "tflite")
    session = Session(Choices(tmp_path, importers=["tensorflow", "tflite"]))
    assert {config.importer for config in session.variants()} == {"tensorflow"}
    assert any("4.6.0 has no importer tflite" in line for line in header(session))
    alone = Session(Choices(tmp_path, importers=["tflite"]))
    with pytest.raises(ConformanceError, match="has no importer 'tflite'; it offers: tensorflow"):
        alone.variants()


@pytest.mark.parametrize(
    ("gone", "taken"),
    [((), "tensorflow"), (("tensorflow",), "onnx"), (("tensorflow", "onnx"), "tflite")],
)
def test_importer_that_is_taken_where_none_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: tuple[str, ...], taken: str
) -> None:
    """TensorFlow's, else ONNX's, else TFLite's; the header says what is missed, ids what ran."""
    lacking(monkeypatch, *gone)
    session = Session(Choices(tmp_path))
    assert session.importers == [taken]
    said = [line for line in header(session) if "has no importer" in line]
    assert said == [
        f"conformance: OpenCV 4.6.0 has no importer {name}: {taken} is judged" for name in gone
    ]
    config = session.variants()[0]
    assert config.variant.startswith(f"{taken}-") == bool(gone)
    assert ("--importer" in localize_command(session, MODEL, config)) == bool(gone)


def test_opencv_that_reads_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenCV without any of the importers is an error that says so."""
    lacking(monkeypatch, *IMPORTERS)
    with pytest.raises(ConformanceError, match="has no importer 'tensorflow'; it offers: none"):
        Session(Choices(tmp_path)).variants()


def test_pack_without_conversion_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be converted, the error has the reason and the command."""
    pack = tiny_pack(tmp_path)
    broken = replace(FORMATS["onnx"], packages=("no-such-package",))
    monkeypatch.setitem(FORMATS, "onnx", broken)
    session = Session(Choices(tmp_path, importers=["onnx"]))
    with pytest.raises(ConformanceError) as told:
        session.check_conversion(pack, "onnx")
    assert "pip install -e '.[onnx]'" in str(told.value)
    assert f"pack build {MODEL} --importer onnx --packs {tmp_path}" in str(told.value)


def wrong(tmp_path: Path, importer: str) -> Pack:
    """Return a pack whose conversion was made of a graph with other weights than the pack's."""
    other = tiny_pack(tmp_path / "other", nodes=graph_nodes(tiny_weights(seed=1)))
    pack = tiny_pack(tmp_path / "packs")
    graph = read_graph(other.graph_path, other.manifest.tensors)

    def fill(folder: Path, manifest: Any) -> None:
        path = folder / FORMATS[importer].file
        formats.convert(importer, graph, [16, 16, 3], path)
        outputs, _ = formats._run(RUNTIMES[importer], path, pack.load("inputs"), pack)
        np.save(folder / "outputs_f32.npy", outputs)

    write_conversion(pack, importer, fill)
    return pack


def test_wrong_conversion_is_not_blamed_on_opencv(tmp_path: Path) -> None:
    """A file that is not the model fails the test of the conversion, whatever OpenCV does."""
    wrong(tmp_path, "tflite")
    arguments = ("--importer", "tflite", "--engine", "classic")
    done = run_suite(tmp_path / "packs", *arguments, keyword=f"{MODEL}-tflite and conversion")
    assert done.returncode == 1
    assert re.search(r"on the TFLite file in .+: frozen_l1_sum is", done.stdout)


def test_commands_name_the_importer(tmp_path: Path) -> None:
    """The command of a diagnosis and of `localize` carries the importer."""
    session = Session(Choices(tmp_path, importers=["tflite"]))
    assert "--importer tflite" in localize_command(session, MODEL, session.variants()[0])


@pytest.mark.parametrize("importer", FORMATS)
def test_reproducer_of_a_converted_file(tmp_path: Path, importer: str) -> None:
    """--reduce writes the smallest part in the importer's format; its short script fails alone."""
    pack = tiny_pack(tmp_path / "packs")
    build_conversion(pack, importer)
    session = Session(Choices(tmp_path / "packs", importers=[importer], engines=["classic"]))
    rule = replace(session.limits.tolerances.rules["layer_rms"], multiple=1e-6, floor_eps=1e-6)
    rules = {**session.limits.tolerances.rules, "layer_rms": replace(rule, multiple_winograd=1e-6)}
    tolerances = replace(session.limits.tolerances, rules=rules)
    session.__dict__["limits"] = replace(session.limits, tolerances=tolerances)
    folder = tmp_path / "out"
    write_reproducer(folder, session, pack, session.variants()[0])
    assert (folder / FORMATS[importer].file).stat().st_size < 1 << 20
    text = (folder / "reproduce.py").read_text()
    assert len(text.splitlines()) <= 30
    assert "readNetFromTensorflow" not in text
    script = subprocess.run(
        [sys.executable, "-I", str(folder / "reproduce.py")], capture_output=True, text=True
    )
    assert script.returncode == 1, script.stderr
    assert "root mean square deviation" in script.stdout
    issue = (folder / "issue.md").read_text()
    assert f"{importer} importer, classic engine" in issue
    assert "The graph was converted with tensorflow" in issue


def test_reproducer_of_a_batch(tmp_path: Path) -> None:
    """What fails on two images only is reduced to a part that two images go through."""
    pack = tiny_pack(tmp_path / "packs")
    build_conversion(pack, "onnx")
    session = Session(Choices(tmp_path / "packs", importers=["onnx"], engines=["classic"]))
    config = session.variants()[0]
    run = session.run(pack, config)
    assert run.outputs is not None
    if run.batch is not None and run.batch.shape == run.outputs[:2].shape:
        pytest.skip("this OpenCV gives a batch through a Squeeze its rows")
    write_reproducer(tmp_path / "out", session, pack, config)
    assert len(np.load(tmp_path / "out" / "input.npy")) == 2
    issue = (tmp_path / "out" / "issue.md").read_text()
    assert "a batch of 2 images gives other rows" in issue
    assert "shape (2, 1, 10), should be (2, 10)" in issue
