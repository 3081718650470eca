"""Findings made small: shrinking, the model as code, the folders, and what a later run reads."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.findings.reduction import Laboratory
from conformance.findings.reproducers import Bench, Shown, write_folder
from conformance.generated.code import code_of
from conformance.generated.drawing import draw, plain
from conformance.generated.findings import Finding
from conformance.generated.outcomes import RIGHT, SINGLE, Outcome
from conformance.generated.patterns import parse_pattern
from conformance.generated.recipes import HEADS, Layer, Recipe, shapes_of
from conformance.generated.reduced import (
    Reduced,
    attached,
    combined,
    read_reduced,
    sequence,
    write_reduced,
)
from conformance.generated.reduction import Answers, Asked, Shrunk, shrink, shrink_all, target_of
from conformance.generated.vocabulary import OPERATIONS
from conformance.opencv.capability import probe_in_child
from conformance.results.cases import writing
from conformance.verdict.tolerance import load_tolerances

from .sample_generated import line


def layer(operation: str, source: int, **given: Any) -> Layer:
    """Return a layer that takes another, plain but for what is given."""
    inputs = (source, source) if OPERATIONS[operation].merges else (source,)
    return Layer(operation, plain(operation, **given), inputs)


def wrong(key: str, ratio: float = 1e4) -> Outcome:
    """Return the outcome of an answer that strays so many times what it may."""
    return Outcome(key, SINGLE, "wrong", "forward", ratio * 1e-5, 1e-5, position=(0, 0))


BIG = Recipe(
    (14, 12, 8),
    (
        layer("Conv2D", 0, kernel_size=(5, 3), padding="same"),
        layer("Softmax", 1, axis=1),
        layer("relu", 2),
        layer("Add", 3),
        layer("MaxPooling2D", 4, pool_size=(3, 3)),
    ),
    head="gap",
    seed=7,
)


def shrunk(recipe: Recipe, shows: Callable[[Recipe], bool], pattern: str = "*") -> Recipe:
    """Return what a recipe shrinks to where OpenCV is wrong on those that `shows` says."""

    def ask(asked: Asked) -> Answers:
        return {
            (*axes, one.key()): [wrong(one.key())] if shows(one) else []
            for axes, recipes in asked.items()
            for one in recipes
        }

    target = target_of("onnx", "classic", wrong(recipe.key()))
    one = Shrunk(target, shrink(recipe, parse_pattern("here", pattern)))
    shrink_all([one], ask)
    assert one.way is not None
    return one.way[-1]


def operations(recipe: Recipe) -> list[str]:
    """Return the operations of a recipe's layers."""
    return [one.operation for one in recipe.layers]


def test_nothing_is_left_that_is_not_needed() -> None:
    """A finding of one attribute shrinks to that layer, plain otherwise, on the smallest input."""
    found = shrunk(BIG, lambda r: any(one.attributes.get("axis") == 1 for one in r.layers))
    assert found == Recipe((2, 2, 1), (layer("Softmax", 0, axis=1),))


def test_two_layers_stay_in_their_order() -> None:
    """What takes two layers keeps both, what is between them goes, and the operand is plain."""
    recipe = replace(BIG, layers=(*BIG.layers[:3], Layer("Add", {}, (1, 3)), layer("relu6", 4)))
    wanted = ["Softmax", "Add"]
    found = shrunk(recipe, lambda r: [o for o in operations(r) if o in wanted] == wanted)
    assert found.layers == (layer("Softmax", 0), layer("Add", 1))


def test_no_layer_is_needed() -> None:
    """Where stem and head are to blame, no layer is left."""
    assert shrunk(BIG, lambda _: True) == Recipe((2, 2, 1), ())


def test_another_defect_is_not_slid_to() -> None:
    """A model with two defects shrinks to the one that its finding is blamed on."""
    found = shrunk(BIG, lambda r: bool({"relu", "Softmax"} & set(operations(r))), "relu")
    assert operations(found) == ["relu"]
    assert operations(shrunk(BIG, lambda r: bool({"Softmax"} & set(operations(r))), "relu")) == [
        "Softmax"
    ]


def test_an_input_that_is_wrong_by_itself_is_left_alone() -> None:
    """An input does not shrink to one that OpenCV is wrong on without any layer."""
    found = shrunk(BIG, lambda r: "relu" in operations(r) or r.input[2] == 1)
    assert (operations(found), found.input) == (["relu"], (2, 2, 3))


def test_a_wrong_answer_stays_far_from_the_limit() -> None:
    """A gross deviation is not shown by one near the limit, a small one by any."""
    gross, small = (target_of("onnx", "new", wrong("a", ratio)) for ratio in (1e6, 2.0))
    assert [gross.shown([wrong("b", ratio)]) for ratio in (2.0, 900.0, 1100.0)] == [0, 0, 1]
    assert small.shown([wrong("b", 1.5)])
    assert not small.shown([replace(wrong("b"), run="batch")])


def test_a_refusal_stays_the_same() -> None:
    """A refusal is the same whatever the node's name and number, not of another operation."""

    def refused(detail: str) -> Outcome:
        return Outcome("a", SINGLE, "refused", "parse", detail=detail)

    first = 'Can\'t create layer "f_1/n2_relu_1/Relu" of type "Erf" (-2, x.cpp:7) (node \'a\')'
    target = target_of("onnx", "classic", refused(first))
    assert target.shown([refused(first.replace("n2_relu_1", "n1_relu").replace("'a'", "'b'"))])
    assert not target.shown([refused(first.replace("Erf", "Neg"))])


def test_the_code_makes_the_model() -> None:
    """Each operation's code, plain and with other attributes, makes a model of its shape."""
    pytest.importorskip("tensorflow")
    checked = 0
    for name, operation in OPERATIONS.items():
        others = {attribute: values[-1] for attribute, values in operation.attributes.items()}
        for given in [{}, others] if others else [{}]:
            for head in HEADS:
                recipe = Recipe((12, 14, 3), (layer(name, 0, **given),), head)
                if shapes_of(recipe) is None:
                    continue
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(code_of(recipe, "a model"), {})
                assert printed.getvalue().strip() == str((None, HEADS[head])), recipe.words()
                checked += 1
                if head == "flatten" and not given:
                    break
    assert checked > 150


CV2 = """import os, signal, time, types
import numpy as np

__version__ = "0.0"

class error(Exception):
    pass

def load(name):
    return np.load(os.path.join(os.path.dirname(__file__), name))

class Net:
    calls = 0

    def setInput(self, blob):
        self.rows = np.searchsorted(load("input.npy")[:, 0, 0, 0], blob[:, 0, 0, 0])

    def forward(self):
        Net.calls += 1
        answer = load("expected.npy")[self.rows]
        {fault}
        return answer

dnn = types.SimpleNamespace(readNetFromTensorflow=lambda *_: Net())
"""
FAULTS = {
    "wrong": "answer = answer + 0.5",
    "shape": "answer = answer[:, None]",
    "unstable": "answer = answer + Net.calls * 1e-12",
    "refused": "raise error('no such layer')",
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": "time.sleep(60)",
}


@pytest.mark.parametrize("symptom", FAULTS)
def test_a_script_tells_its_symptom(
    tmp_path: Path, symptom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script ends with 1 and says what happens while the defect is there, else with 0."""
    monkeypatch.setattr("conformance.findings.reproducers._SECONDS", 2)
    bench = Bench(
        tmp_path,
        {"version": "5.0.0", "engine_constants": {}, "distribution": "opencv-python"},
        load_tolerances(),
    )
    truth = np.linspace(-1, 1, 24).reshape(4, 6)
    images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
    arrays = {"inputs": images, "f64": truth}
    arrays.update(f32=truth.astype(np.float32), runtime=truth.astype(np.float32))
    outcome = replace(wrong("a"), symptom=symptom, position=None)
    recipe = Recipe((1, 1, 1), (layer("relu", 0),))
    config, kinds = RunConfig(), [("Conv2D", 0), ("Relu", 1)]
    shown = Shown([finding("aa")], recipe, outcome, config, b"graph", arrays, kinds)
    folder = tmp_path / f"{symptom}-tensorflow-relu-aa"
    folder.mkdir()
    (folder / "cv2.py").write_text(CV2.format(fault=FAULTS[symptom]))
    assert write_folder(bench, shown) == folder
    script = folder / "reproduce.py"
    assert len(script.read_text().splitlines()) < 30
    issue = (folder / "issue.md").read_text()
    assert "relu" in issue
    assert str(tmp_path) not in issue
    assert run(script) == 1
    (folder / "cv2.py").write_text(CV2.format(fault="pass"))
    assert run(script) == 0
    assert write_folder(bench, shown) is None
    assert not script.exists()


def run(script: Path) -> int:
    """Return the status of a script."""
    return subprocess.run([sys.executable, str(script)], capture_output=True).returncode


def finding(name: str, **more: Any) -> Finding:
    """Return a finding of onnx."""
    values: dict[str, Any] = {
        **{"id": name, "symptom": "wrong", "importer": "onnx", "engine": "classic"},
        **{"run": SINGLE, "bad": ["5.0.0"], "good": [], "operations": ["A", "B"]},
        **{"layers": ["relu", "relu"], "input": [None, 14, 14, 3], "deviation": 0.5},
        **{"allowed": 1e-5, "cases": [name], "known": None, "reproducer": None},
        **{"pattern": "relu", "detail": ""},
    }
    return Finding(**{**values, **more})


def reduced(same: str, *ids: str, version: str = "5.0.0") -> Reduced:
    """Return what findings were shrunk to, its folder the sequence's own name."""
    recipe = Recipe((2, 2, 1), (layer("relu", 0),))
    return Reduced(
        list(ids), same, same, [version], ["relu"], ["Relu"], [None, 2, 2, 1], recipe.as_dict()
    )


def test_findings_of_one_sequence_are_one(tmp_path: Path) -> None:
    """Findings that shrank to one sequence become the first of them, with all cases and engines."""
    some = [
        finding("a", good=["4.9.0", "5.0.1"]),
        finding("b"),
        finding("c", engine="new", bad=["5.0.1"], deviation=2.0, known="entry"),
    ]
    first, other = attached(some, [reduced("s", "a", "c")], tmp_path)
    assert other == some[1]
    assert (first.id, first.cases, first.engine) == ("a", ["a", "c"], "classic, new")
    assert (first.bad, first.good) == (["5.0.0", "5.0.1"], ["4.9.0"])
    assert (first.deviation, first.known) == (2.0, "entry")
    assert (first.layers, first.operations) == (["relu"], ["Relu"])
    assert (first.input, first.reproducer) == ([None, 2, 2, 1], str(tmp_path / "s"))


def test_a_sequence_has_no_shapes() -> None:
    """Recipes of other inputs are one sequence, those of other attributes or wiring are not."""
    same = Recipe((4, 4, 1), (layer("Conv2D", 0), layer("Add", 1)))
    assert sequence(same) == sequence(replace(same, input=(8, 8, 3), seed=5, head="gap"))
    others = [
        (layer("Conv2D", 0, strides=(2, 2)), same.layers[1]),
        (same.layers[0], Layer("Add", {}, (0, 1))),
    ]
    assert len({sequence(same), *(sequence(replace(same, layers=o)) for o in others)}) == 3


def test_a_later_run_adds_to_what_is_there(tmp_path: Path) -> None:
    """What another version reduced stays; a finding that both did is the later run's."""
    older = [reduced("s", "a", version="4.9.0"), reduced("t", "b", "c"), reduced("u", "d")]
    newer = [reduced("s", "b"), reduced("v", "d")]
    found = {one.same: one for one in combined(older, newer)}
    assert {same: one.ids for same, one in found.items()} == {
        "s": ["b", "a"],
        "t": ["c"],
        "v": ["d"],
    }
    assert found["s"].opencv == ["4.9.0", "5.0.0"]
    (tmp_path / "s").mkdir()
    write_reduced(tmp_path, list(found.values()), [finding("a")])
    assert read_reduced(tmp_path) == [found["s"]]  # the other folders are gone


@pytest.mark.parametrize("text", ["{}", "[]", '{"schema": 9}', '{"schema": 1, "reduced": [{}]}'])
def test_a_file_of_others_is_refused(tmp_path: Path, text: str) -> None:
    """A findings.json that no --reduce wrote is refused by name."""
    (tmp_path / "findings.json").write_text(text)
    with pytest.raises(ConformanceError, match=r"findings\.json"):
        read_reduced(tmp_path)


def results(path: Path, version: str, guilty: Callable[[Recipe], bool]) -> Path:
    """Write a results file of the first models of seed 0, the guilty ones wrong."""
    header = {
        "opencv": {"version": version, "distribution": "opencv"},
        **{"conformance": "0", "engine": "classic", "importer": "tensorflow"},
        **{"backend": "default", "target": "cpu", "keras": "keras3", "graph": "opencv"},
        **{"weights": "synthetic", "packs": {}},
        "environment": {"python": "3.11", "numpy": "2", "cpu": "x", "threads": 1},
        "generated": {"count": 40, "seed": 0, "digest": "d"},
    }
    with writing(path, header) as writer:
        for recipe in draw(40, 0):
            symptom = "wrong" if guilty(recipe) else RIGHT
            writer.write(line(recipe.key(), symptom, recipe))
    return path


def has_relu(recipe: Recipe) -> bool:
    """Return whether a recipe has a relu."""
    return "relu" in operations(recipe)


def test_a_finding_is_reduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """findings --reduce writes a folder whose script fails, and --reproducers tells of it later."""
    pytest.importorskip("tensorflow")
    from .sabotaged_build import untrue_part

    monkeypatch.setattr("conformance.reference.generated_pack.build_part", untrue_part)
    version = probe_in_child()["version"]
    file = results(tmp_path / "a.jsonl", version, has_relu)
    command, out = ["findings", str(file), "--format", "json"], str(tmp_path / "out")
    assert main([*command, "--packs", str(tmp_path), "--reduce", out]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["layers"] == ["keras.activations.relu(x)"]
    assert (found["operations"], found["input"]) == (["Relu"], [None, 2, 2, 1])
    folder = Path(found["reproducer"])
    assert folder.parent == tmp_path / "out"
    assert sum(one.stat().st_size for one in folder.iterdir()) < 100_000
    assert run(folder / "reproduce.py") == 1
    expected = np.load(folder / "expected.npy")
    np.save(folder / "expected.npy", expected / 1.01)
    assert run(folder / "reproduce.py") == 0
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec((folder / "model.py").read_text(), {})
    assert printed.getvalue().strip() == str((None, *expected.shape[1:]))
    assert main([*command, "--reproducers", out]) == 1
    assert json.loads(capsys.readouterr().out) == [found]


def test_a_runtime_that_is_wrong_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of OpenCV on a file that its own runtime answers wrongly is no candidate."""
    bench = Bench(Path(), {"version": "5.0.0", "engine_constants": {}}, load_tolerances())
    truth = np.linspace(-1, 1, 24).reshape(4, 6)
    arrays = {"a/inputs": truth, "a/f64": truth, "a/f32": truth.astype(np.float32)}
    died = Outcome("a", SINGLE, "crash", "forward", detail="SIGSEGV")
    models = [{"key": "a", "recipe": Recipe((2, 2, 1), ()).as_dict(), "operations": {"onnx": []}}]
    files = {"a/onnx": np.zeros(1, np.uint8)}
    laboratory = Laboratory(ThreadPoolExecutor(), None, bench)
    monkeypatch.setattr("conformance.findings.reduction.outcomes_of", lambda *_: iter([died]))
    for runtime, judged in ((truth.astype(np.float32), [died]), (truth * 1.01, [])):
        part = models, files, {**arrays, "a/onnx": runtime}
        assert laboratory.judged_part(("onnx", "classic"), ["a"], part) == judged


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--only", "abc"], "--only says what --reduce DIR reduces"),
        (["--reduce", "{file}"], "it is a file; give a folder"),
        (["--reduce", "out", "--only", "abc"], "--only abc: no finding of these results"),
        (["--reduce", "out"], "shows none of these findings"),
        (["--reproducers", "{file}.d"], "findings.json: can't be read"),
    ],
    ids=["only", "file", "unknown", "elsewhere", "no folder"],
)
def test_what_cannot_be_reduced_is_told(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be reduced is one message, findings of another OpenCV among it."""
    pytest.importorskip("tensorflow")
    file = results(tmp_path / "a.jsonl", "4.0.9", has_relu)
    given = [option.format(file=file) for option in options]
    assert main(["findings", str(file), *given]) == 2
    told = capsys.readouterr().err
    assert says in told
    if "out" in options and "--only" not in options:
        assert "opencv-python-headless==4.0.9.*" in told


def test_missing_tensorflow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without TensorFlow --reduce says what to install."""
    monkeypatch.setattr("conformance.pack.builder.producer_versions", lambda *_: None)
    file = results(tmp_path / "a.jsonl", "5.0.0", has_relu)
    assert main(["findings", str(file), "--reduce", str(tmp_path / "out")]) == 2
    assert "--reduce needs TensorFlow" in capsys.readouterr().err
