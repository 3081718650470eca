"""The pytest plugin, run as users run it: pytest in a process of its own, on tiny real packs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from filelock import FileLock

from conformance.opencv.capability import probe_in_child
from conformance.plugin import INI
from conformance.plugin.cases import model_of_test
from conformance.processes.machine import cores
from conformance.results.cases import read_results
from conformance.verdict.expectations import NO_MODEL

from .graphdef import changed
from .tiny import graph_nodes, tiny_pack, tiny_weights

MODEL = "mobilenet"
SUITE = ("--pyargs", "conformance.suite", "-p", "no:cacheprovider")


def run_suite(
    packs: Path, *arguments: str, keyword: str = "mobilenet and not mobilenetv2"
) -> subprocess.CompletedProcess[str]:
    """Run the suite's tests of one model."""
    command = [sys.executable, "-m", "pytest", *SUITE, "--packs", str(packs), "-k", keyword]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, cwd=packs, check=False
    )


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good tiny pack."""
    root = tmp_path_factory.mktemp("packs")
    tiny_pack(root, MODEL)
    return root


@pytest.fixture(scope="module")
def bad_packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack whose graph has other weights than its reference."""
    root = tmp_path_factory.mktemp("bad")
    tiny_pack(root, MODEL, nodes=graph_nodes(tiny_weights(seed=1), 16))
    return root


def test_good_pack_passes_with_a_verdict(packs: Path) -> None:
    """A candidate that agrees passes every test, and the table says so for each engine."""
    done = run_suite(packs)
    assert done.returncode == 0, done.stdout
    assert "conformance: OpenCV" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(MODEL)]
    assert rows
    assert all(row[2] == "passed" for row in rows)
    tests = re.search(r"conformance: (\d+) tests of 1 model, about \d+ s", done.stdout)
    judged = re.search(r"conformance: mobilenet: judged, (\d+) passed", done.stdout)
    assert tests is not None
    assert judged is not None
    assert tests[1] == judged[1]


def test_run_says_at_once_what_it_will_do(packs: Path) -> None:
    """Through a pipe too, the plan is to be read while the tests are still to come."""
    only = ["-k", f"{MODEL} and not mobilenetv2"]
    command = [sys.executable, "-m", "pytest", *SUITE, "--packs", str(packs), *only]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=packs, env=environment) as process:
        assert process.stdout is not None
        said = b""
        while not re.search(rb"conformance: \d+ tests of", said):
            more = os.read(process.stdout.fileno(), 1 << 16)
            assert more, said
            said += more
        assert b"judged, " not in said
        assert b"judged, " in process.stdout.read()


def test_model_is_judged_while_another_is_built(tmp_path: Path) -> None:
    """What is there is judged first; results begin once all packs are there, and name them all."""
    tiny_pack(tmp_path, "resnet50")
    keyword = f"({MODEL} and not mobilenetv2 or resnet50) and test_import"
    done = run_suite(tmp_path, "--results", "results", "--engine", "default", keyword=keyword)
    assert done.returncode == 0, done.stdout
    steps = ("resnet50: judged", f"{MODEL}: freezing", f"{MODEL}: built", f"{MODEL}: judged")
    places = [done.stdout.index(f"conformance: {step}") for step in steps]
    assert places == sorted(places)
    (file,) = (tmp_path / "results").glob("*.jsonl")
    results = read_results(file)
    assert results.header["packs"].keys() == {MODEL, "resnet50"}
    assert {case["model"] for case in results.cases} == {MODEL, "resnet50"}


def test_generated_models_are_not_waited_for(packs: Path) -> None:
    """While generated models are built, models whose packs are there are judged."""
    files = [f"conformance.suite.test_{name}" for name in ("generated", "import")]
    command = [sys.executable, "-m", "pytest", "--pyargs", *files, "-p", "no:cacheprovider"]
    command += ["--packs", str(packs), "--model", MODEL, "--generated", "3", "--engine", "default"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=packs, check=False)
    assert done.returncode == 0, done.stdout
    steps = (f"{MODEL}: judged", "generated: built")
    judged, built = (done.stdout.index(f"conformance: {step}") for step in steps)
    assert judged < built


def test_run_imports_nothing_of_what_it_leaves_out(packs: Path) -> None:
    """Neither the evaluation nor what times inferences is imported by a run that does neither."""
    collect = [*SUITE, "--packs", str(packs), "-k", MODEL, "--collect-only", "-q"]
    code = (
        f"import pytest, sys; assert pytest.main({collect!r}) == 0; "
        "names = 'imagenet.evaluation imagenet.runner imagenet.command opencv.timing'; "
        "sys.exit(sum(f'conformance.{name}' in sys.modules for name in names.split()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=packs, check=False)
    assert done.returncode == 0, done.stderr
    assert f"test_shape[{MODEL}" in done.stdout


def test_failure_message_is_complete(bad_packs: Path) -> None:
    """A failed check names model, version, engine, place, both top-5s, limits and the command."""
    done = run_suite(bad_packs)
    assert done.returncode == 1
    text = done.stdout
    for part in (
        f"{MODEL} on OpenCV ",
        "engine: softmax_l1_sum is ",
        ", allowed ",
        "worst input ",
        ", class ",
        "top-5 of OpenCV",
        "top-5 of reference",
        "again: pytest ",
    ):
        assert part in text, f"{part!r} missing in {text}"


def test_answers_that_are_no_numbers_are_in_the_table(tmp_path: Path) -> None:
    """A model that answers NaN fails, and its row of the table says how far that is off."""
    weights = tiny_weights()
    weights["head/bias"][0] = np.nan
    tiny_pack(tmp_path, MODEL, nodes=graph_nodes(weights, 16))
    done = run_suite(tmp_path, "--engine=classic")
    assert done.returncode == 1, done.stdout
    assert re.search(rf"^{MODEL} +classic +failed .* inf +\S+ +inf%", done.stdout, re.MULTILINE)


def test_command_of_a_failure_runs_just_that_case(bad_packs: Path, tmp_path: Path) -> None:
    """The command printed with a failure collects one test, the failing one."""
    done = run_suite(bad_packs, "--engine", "classic")
    command = next(line for line in done.stdout.splitlines() if "again: pytest " in line)
    again = command.split("again: ")[1]
    rerun = subprocess.run(
        f"{sys.executable} -m {again}",
        shell=True,
        capture_output=True,
        text=True,
        cwd=bad_packs,
        check=False,
    )
    assert rerun.returncode == 1, rerun.stdout + rerun.stderr
    assert "1 failed" in rerun.stdout
    assert "passed" not in rerun.stdout.splitlines()[-1]


def test_results_that_another_run_writes_end_the_run(packs: Path, tmp_path: Path) -> None:
    """Two runs on one results file: the second ends with status 4 and one message."""
    version = probe_in_child()["version"]
    with FileLock(tmp_path / f".{version}-classic.jsonl.lock"):
        done = run_suite(packs, "--engine=classic", f"--results={tmp_path}")
    assert done.returncode == 4, done.stdout
    assert "another run is writing this results file" in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_full_disk_under_results_ends_the_run(packs: Path, tmp_path: Path) -> None:
    """Results that can't be written end the run with status 4 and one message."""
    version = probe_in_child()["version"]
    (tmp_path / f"{version}-classic.jsonl").symlink_to("/dev/full")
    done = run_suite(packs, "--engine=classic", f"--results={tmp_path}")
    assert done.returncode == 4, done.stdout
    assert "No space left on device" in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_weights_that_are_not_there_are_errors(packs: Path) -> None:
    """--weights with no such file is an error of each test that says so, and nothing internal."""
    done = run_suite(packs, "--weights=nowhere", "--engine=classic")
    assert done.returncode == 1, done.stdout
    assert "weights 'nowhere': no such file or folder" in done.stdout
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_results_hold_every_case(bad_packs: Path, tmp_path: Path) -> None:
    """--results writes one file an engine: each case once, failures with reason and command."""
    done = run_suite(bad_packs, "--results", str(tmp_path))
    files = sorted(tmp_path.glob("*.jsonl"))
    assert files
    for file in files:
        results = read_results(file)
        ids = [case["id"] for case in results.cases]
        assert len(ids) == len(set(ids))
        failed = [case for case in results.cases if case["outcome"] == "failed"]
        assert failed
        assert all(case["reason"] and case["command"] for case in failed)
        assert {"observed", "allowed", "metric"} <= failed[0].keys()
        assert [run["model"] for run in results.runs] == [MODEL]
    assert done.returncode == 1


def test_xdist_runs_the_same_cases(packs: Path, tmp_path: Path) -> None:
    """With -n 2 the same cases pass and the results are the same, but for order and threads."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run_suite(packs, "--results", str(alone)).returncode == 0
    assert run_suite(packs, "--results", str(together), "-n", "2").returncode == 0
    for file in alone.glob("*.jsonl"):
        one, two = read_results(file), read_results(together / file.name)
        assert sorted(map(json.dumps, one.cases)) == sorted(map(json.dumps, two.cases))
        threads = [r.header["environment"]["threads"] for r in (one, two)]
        assert threads == [cores(), max(1, cores() // 2)]


def test_a_model_stays_on_one_worker(tmp_path: Path) -> None:
    """With -n 2 all tests of a model run in one process, so that no candidate runs twice."""
    models = (MODEL, "resnet50")
    for model in models:
        tiny_pack(tmp_path, model)
    keyword = f"({MODEL} and not mobilenetv2 or resnet50) and test_agreement"
    done = run_suite(tmp_path, "-n", "2", "-v", keyword=keyword)
    for model in models:
        ran = re.findall(rf"\[(gw\d)\].* PASSED .*\[{model}-", done.stdout)
        assert len(ran) > 10, done.stdout
        assert len(set(ran)) == 1


def test_a_test_stays_with_its_model() -> None:
    """A test's id gives its model, also one whose name begins another's or holds a dash."""
    models = ["mobilenet", "mobilenetv2", "two-new.keras", "keras"]
    for test, model in (
        ("test_a.py::test_top1[mobilenet-new]", "mobilenet"),
        ("test_a.py::test_parse[new-mobilenetv2]", "mobilenetv2"),
        ("test_a.py::test_layers[two-new.keras]", "two-new.keras"),
        ("test_a.py::test_blob[even]", "test_a.py::test_blob[even]"),
    ):
        assert model_of_test(models, test) == model


def test_known_failure_is_expected(bad_packs: Path, tmp_path: Path) -> None:
    """Cases that a known failure describes are expected to fail; nobody looks for their cause."""
    known = tmp_path / "known.toml"
    entries = (
        f'[[failure]]\nmodel = "{MODEL}"\nstage = "{stage}"\nreason = "other"\n'
        for stage in ("agreement", "layers")
    )
    known.write_text("\n".join(["schema = 1", *entries]))
    done = run_suite(bad_packs, "--known-failures", str(known), "--xfail-tb")
    assert done.returncode == 0, done.stdout
    assert "xfailed" in done.stdout
    assert "again: pytest " in done.stdout
    assert "node by node: " not in done.stdout
    asked = run_suite(bad_packs, "--known-failures", str(known), "--runxfail")
    assert "node by node: " in asked.stdout


def test_known_failure_that_passes_is_an_error(packs: Path, tmp_path: Path) -> None:
    """An entry whose case passes fails the run: the list holds no failure that is gone."""
    known = tmp_path / "known.toml"
    known.write_text(
        f'schema = 1\n[[failure]]\nmodel = "{MODEL}"\nstage = "agreement"\nreason = "gone"\n'
    )
    done = run_suite(packs, "--known-failures", str(known))
    assert done.returncode == 1
    assert "XPASS(strict)" in done.stdout


def test_other_settings_than_this_ini_s_do_no_harm(packs: Path) -> None:
    """Where pytest finds no pytest.ini of ours, our markers are known, strictly, too."""
    done = run_suite(packs, "--collect-only", "-q", "--strict-markers", keyword="top1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PytestUnknownMarkWarning" not in done.stdout


def test_junit_names_the_case(packs: Path, tmp_path: Path) -> None:
    """JUnit XML carries model, OpenCV version and engine of each case, and no printed dicts."""
    report = tmp_path / "junit.xml"
    run_suite(packs, f"--junit-xml={report}")
    cases = ElementTree.parse(report).iter("testcase")
    case = next(c for c in cases if c.attrib["name"].startswith("test_top1"))
    properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
    assert properties["model"] == MODEL
    assert properties["engine"] in ("classic", "new")
    assert properties["opencv"][0].isdigit()
    assert float(properties["observed"]) <= float(properties["allowed"])
    assert [name for name, value in properties.items() if "{" in value] == []


def test_blobs_are_recorded_without_a_model(packs: Path, tmp_path: Path) -> None:
    """What blobFromImage alone does wrong is in the results, as it matters to an upgrade too."""
    wrong = tmp_path / "wrong.toml"
    entry = 'stage = "preprocessing"\ntest = "test_uint8_blob"\ncase = "uint8-grey"\n'
    wrong.write_text(f'schema = 1\n[[failure]]\n{entry}reason = "it is not"\n')
    arguments = ("--engine=default", f"--results={tmp_path}", f"--known-failures={wrong}")
    done = run_suite(packs, *arguments, keyword="uint8-grey and not params")
    (case,) = read_results(next(tmp_path.glob("*.jsonl"))).cases
    assert (case["model"], case["outcome"]) == (NO_MODEL, "failed")
    assert case["id"] == "test_preprocessing.py::test_uint8_blob[uint8-grey]"
    assert "test_uint8_blob[uint8-grey]" in case["command"]
    assert NO_MODEL in done.stdout


def test_broken_graph_fails_one_test_and_errors_the_rest(tmp_path: Path) -> None:
    """A graph that OpenCV can't parse fails the test of parsing; nothing after it passes."""
    nodes = graph_nodes(tiny_weights(), 16)
    tiny_pack(tmp_path, MODEL, nodes=changed(nodes, "conv1/Relu", op="NoSuchOp"))
    done = run_suite(tmp_path, "--engine", "classic", "--results", str(tmp_path / "results"))
    assert done.returncode == 1
    results = read_results(next((tmp_path / "results").glob("*.jsonl")))
    outcomes = {case["id"]: case["outcome"] for case in results.cases}
    stages = ("parse", "setup", "forward")
    imports = [outcomes[f"test_import.py::test_{stage}[{MODEL}]"] for stage in stages]
    # Some versions refuse the operation when parsing, some when setting up.
    assert imports in (["failed", "errored", "errored"], ["passed", "failed", "errored"])
    assert outcomes[f"test_agreement.py::test_top1[{MODEL}]"] == "errored"
    assert outcomes[f"test_freezing.py::test_frozen_graph_equals_keras[{MODEL}]"] == "passed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "newest"), "has no engine 'newest'; it offers: classic"),
        (("--importer", "caffe2"), "'caffe2' is none of tensorflow, onnx, tflite"),
        (("--target", "myriad"), "has no target 'myriad'; it offers: cpu"),
        (("--known-failures", "nowhere.toml"), "nowhere.toml"),
        (("--known-defects", "nowhere.toml"), "nowhere.toml"),
        (("--threads", "-3"), "--threads -3: give 1 or more"),
        (("--candidate-timeout", "0"), "--candidate-timeout 0: give a number above 0"),
        (("--winograd", "maybe"), "--winograd maybe: give on, off, or on,off"),
        (("--results", __file__), "it is a file; give a folder"),
        (("--packs", __file__), "it is a file; give a folder"),
    ],
)
def test_bad_option_is_a_usage_error(packs: Path, arguments: tuple[str, str], said: str) -> None:
    """An option that this OpenCV can't serve stops the run with one line and status 4."""
    done = run_suite(packs, *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_bad_file_of_defects_is_told_before_collection(packs: Path) -> None:
    """It is a usage error too where generated models are collected, and none of them chosen."""
    words = ("--known-defects", "nowhere.toml", "--collect-only")
    done = run_suite(packs, *words, keyword="mobilenet and test_import")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "nowhere.toml" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "marker"),
    [
        (("--jobs=1",), "imagenet"),
        (("--subset", "5", "--resume"), "imagenet"),
        (("--batch", "4"), "inference_time"),
        (("--generated-seed", "1", "-m", "not generated"), "generated"),
    ],
)
def test_option_of_what_is_left_out_is_refused(
    packs: Path, arguments: tuple[str, ...], marker: str
) -> None:
    """An option that nothing in the run heeds is a usage error that says which marker wants it."""
    done = run_suite(packs, *arguments, "--collect-only")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    option = arguments[0].partition("=")[0]
    assert f"ask for it with -m {marker}, or leave {option} out" in done.stderr


def test_option_of_every_run_may_stand_in_addopts(packs: Path) -> None:
    """Options that one's settings add to each run are none that somebody has just typed."""
    done = run_suite(packs, "-o", "addopts=--jobs=1 --batch=4", "--collect-only")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not INI.exists(), reason="there is no checkout to run in")
def test_path_after_an_option_hides_no_settings(tmp_path: Path) -> None:
    """In a checkout, a model given in two words from elsewhere leaves ids and pytest.ini alone."""
    (tmp_path / "m.pb").touch()
    (tmp_path / "pytest.ini").touch()  # which pytest takes, as it takes the model for a test
    command = [sys.executable, "-m", "pytest", "--model", str(tmp_path / "m.pb"), "--collect-only"]
    done = subprocess.run(
        [*command, "-q", "-k", "test_top1"], capture_output=True, text=True, cwd=INI.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("conformance/suite/test_agreement.py::test_top1[m.pb-")


def test_interrupted_run_leaves_no_evidence(
    packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run interrupted before its last case writes what it found, without footer."""
    plugin = tmp_path / "interrupter.py"
    plugin.write_text(
        "def pytest_runtest_teardown(item):\n"
        "    if 'test_top1' in item.name:\n"
        "        raise KeyboardInterrupt\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    results = tmp_path / "results"
    done = run_suite(packs, "--results", str(results), "-p", "interrupter", "-p", "no:xdist")
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout + done.stderr
    texts = [path.read_text() for path in results.iterdir()]
    assert any('"kind": "case"' in text or '"kind":"case"' in text for text in texts)
    assert not any('"footer"' in text for text in texts)
