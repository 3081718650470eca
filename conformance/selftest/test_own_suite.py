"""Models of the user's own through pytest and the commands, as users run them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf

from conformance.bench.command import bench_packs
from conformance.cli.main import make_parser
from conformance.errors import ConformanceError
from conformance.inputs.preprocessing import MODES
from conformance.opencv.run import run_candidate
from conformance.own_models import own_model
from conformance.pack.format import Pack
from conformance.pack.request import PackRequest, keras_flavour
from conformance.pack.store import find_pack
from conformance.results.cases import read_results
from conformance.session import Choices, Session
from conformance.verdict.checks import judge_run
from conformance.verdict.expectations import NO_MODEL
from conformance.verdict.judgement import Judgement
from conformance.verdict.message import Context, failure_message

from .own_models import TWO_HEADS, classifier_v1, graph_v1, layers, model, save


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this Python in `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def suite(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the suite's tests in `cwd`, but for those of blobFromImage alone."""
    options = ("--pyargs", "conformance.suite", "-p", "no:cacheprovider", "--packs", "packs")
    return run(cwd, "pytest", *options, *arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Keras model of two outputs, a graph of TensorFlow 1 and a models file."""
    folder = tmp_path_factory.mktemp("own")
    save(model(TWO_HEADS), folder / "two-new.keras")
    graph_v1(folder / "v1.pb", classifier_v1, "prob")
    (folder / "conformance.toml").write_text(
        '[[model]]\nname = "flowers"\npath = "v1.pb"\npreprocess = "tf"\n'
    )
    return folder


@pytest.fixture(scope="module")
def judged(home: Path) -> subprocess.CompletedProcess[str]:
    """What pytest says of both models."""
    given = ("--model", "two-new.keras", "--model", "v1.pb", "--model-preprocess", "torch")
    return suite(home, *given, "--results", "results", "-n", "2")


def test_own_models_are_judged_alone(judged: subprocess.CompletedProcess[str], home: Path) -> None:
    """Every test judges the given models and no others; ids and results bear the files' names."""
    assert judged.returncode == 0, judged.stdout + judged.stderr
    for file in (home / "results").glob("*.jsonl"):
        results = read_results(file)
        assert {case["model"] for case in results.cases} == {"two-new.keras", "v1.pb", NO_MODEL}
        outcomes = {case["id"]: case["outcome"] for case in results.cases}
        for test in (
            "test_import.py::test_parse[{}]",
            "test_agreement.py::test_top1[{}]",
            "test_agreement.py::test_softmax[{}-softmax_l1_sum]",
            "test_layers.py::test_nodes_stay_in_the_noise[{}]",
            "test_preprocessing.py::test_keras_preprocessing[{}]",
            "test_own_preprocessing.py::test_own_blob[{}]",
            "test_freezing.py::test_frozen_graph_equals_keras[{}]",
        ):
            for name in ("two-new.keras", "v1.pb"):
                assert outcomes[test.format(name)] == "passed"


def test_table_says_what_is_judged_otherwise(judged: subprocess.CompletedProcess[str]) -> None:
    """The end of a run names each output and what it is."""
    told = " ".join(judged.stdout.split())
    assert "two-new.keras: output 'classes': a softmax of 7 classes" in told
    assert "two-new.keras: output 'box': 4 values, no softmax" in told


def test_registered_model_is_judged_by_name(home: Path) -> None:
    """A model of conformance.toml is judged under its name, and localize takes it too."""
    done = suite(home, "--model", "flowers", "-k", "test_top1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "flowers" in done.stdout
    located = run(home, "conformance", "localize", "flowers", "--packs", "packs")
    assert located.returncode == 0, located.stdout + located.stderr
    assert "flowers: nothing strays farther than it may" in located.stdout


def test_plain_run_takes_the_registered_models_too(home: Path) -> None:
    """Without --model the registry's models and those of conformance.toml are collected."""
    done = suite(home, "--collect-only", "-q", "-k", "test_top1")
    assert "[classic-flowers]" in done.stdout or "[flowers-classic]" in done.stdout
    assert "mobilenet" in done.stdout


def test_rerun_command_names_the_model(home: Path) -> None:
    """The command that a failed case prints judges that model again with its options."""
    labels = home / "labels.txt"
    labels.write_text("one\ntwo\n")
    done = suite(home, "--model", "v1.pb", "--model-labels", "labels.txt", "-k", "test_top1")
    assert done.returncode == 1
    assert "2 lines, but v1.pb has 7 of output 'prob'" in done.stdout
    assert "pack build v1.pb --model-labels labels.txt" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.fixture(scope="module")
def two(judged: subprocess.CompletedProcess[str], home: Path) -> Pack:
    """The pack of the model with two outputs."""
    own = own_model(home / "two-new.keras")
    own = replace(own, preprocess=MODES["torch"])
    pack = find_pack(home / "packs", PackRequest(own.name, keras=keras_flavour(), own=own))
    assert pack is not None
    return pack


def test_every_output_is_judged(two: Pack, home: Path) -> None:
    """A deviation of the second output alone fails, and the judgement names that output."""
    session = Session(Choices(home / "packs", engines=["default"]))
    config = session.variants()[0]
    answer = run_candidate(two, config)
    assert all(judgement.passed for judgement in judge_run(session.limits, two, answer))
    box = answer.further[0]["outputs"]
    assert box is not None
    answer.further[0]["outputs"] = box + np.float32(1e-2)
    failed = [
        judgement for judgement in judge_run(session.limits, two, answer) if not judgement.passed
    ]
    assert {"output_l1_sum", "output_linf"} <= {judgement.metric for judgement in failed}
    assert {judgement.output for judgement in failed} == {"box"}


def test_message_names_output_and_labels() -> None:
    """A failure tells the output and the model's own names of the classes, never ImageNet's."""
    top = ((1, 0.9), (0, 0.1))
    wrong = Judgement("top1", False, 1.0, 0.1, position=1, input="home", output="classes")
    wrong = replace(wrong, candidate_top=top, truth_top=top)
    context = Context("net.keras", "5.0.0", "new", "pytest", labels=("rose", "tulip, white"))
    text = failure_message(wrong, context)
    assert "net.keras (output 'classes') on OpenCV 5.0.0" in text
    assert "0.900000 'tulip' (1), 0.100000 'rose' (0)" in text
    unnamed = failure_message(wrong, replace(context, labels=()))
    assert "0.900000 class 1" in unnamed
    assert "worst input 'home', class 1" in unnamed


def test_message_of_a_map_tells_the_place() -> None:
    """Where the output is a map, a failure tells row, column and channel, and no best classes."""
    top = ((70, 0.9),)
    wrong = Judgement("output_linf", False, 1.0, 0.1, position=70, input="home", values=(1.0, 0.0))
    wrong = replace(wrong, candidate_top=top, truth_top=top)
    context = Context("net.keras", "5.0.0", "new", "pytest", labels=(), shape=(16, 16, 4))
    text = failure_message(wrong, context)
    assert "worst input 'home', at [1, 1, 2] of 16 x 16 x 4: 1, should be 0" in text
    assert "top-5" not in text


def test_times_are_recorded(home: Path, judged: subprocess.CompletedProcess[str]) -> None:
    """Inference times are recorded of OpenCV and TensorFlow; a graph has no Keras model to call."""
    done = suite(
        home,
        *("--model", "two-new.keras", "--model", "v1.pb", "--model-preprocess", "torch"),
        *("-m", "inference_time", "--engine", "default", "-rs", "--benchmark-max-time=0.05"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed, 1 skipped" in done.stdout
    assert "v1.pb: there is no Keras model to call" in done.stdout


def test_evaluation_of_own_models_alone_is_refused(home: Path) -> None:
    """-m imagenet is of the registry's models: asked for own ones alone, it says so."""
    (home / "val.txt").write_text("a.jpg 1\n")
    (home / "val").mkdir(exist_ok=True)
    (home / "val" / "a.jpg").touch()
    given = ("-m", "imagenet", "--imagenet-dir", "val", "--imagenet-labels", "val.txt")
    done = suite(home, "--model", "v1.pb", *given)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "v1.pb: the evaluation on ImageNet is of models of the registry only" in done.stderr


def test_bench_takes_the_model(home: Path, judged: subprocess.CompletedProcess[str]) -> None:
    """bench compares wheels on an own model's pack; a missing one says how it is built."""
    model, packs = str(home / "v1.pb"), str(home / "packs")
    words = ["bench", model, "--opencv", "5.0.0", "--packs", packs, "--model-preprocess"]
    (pack,) = bench_packs(make_parser().parse_args([*words, "torch"]))
    assert (pack.model, pack.path.parent) == ("v1.pb", home / "packs" / "v1.pb")
    with pytest.raises(ConformanceError, match=rf"pack build {model} --model-preprocess caffe"):
        bench_packs(make_parser().parse_args([*words, "caffe"]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pack", "build", "lambda.keras"), "has a Lambda layer"),
        (("pack", "build", "nowhere.pb"), "no such file or folder"),
        (("localize", "fake.pb"), "is no GraphDef"),
        (("pack", "build", "v1.pb", "--model-preprocess", "pickle.npy"), "pickle.npy"),
    ],
)
def test_bad_model_is_one_line_and_status_2(
    home: Path, arguments: tuple[str, ...], said: str
) -> None:
    """A command on a model that can't be judged ends with status 2 and the reason."""
    images = layers.Input((8, 8, 3))
    made = tf.keras.Model(images, layers.Lambda(lambda x: x)(images))
    save(made, home / "lambda.keras")
    (home / "fake.pb").write_bytes(b"nothing of the kind")
    (home / "pickle.npy").write_bytes(b"\x80\x04N.")
    done = run(home, "conformance", *arguments, "--packs", "bad")
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
