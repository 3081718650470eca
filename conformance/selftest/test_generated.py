"""Generated models: recipes, their shapes and drawing, the judging of many in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.generated import run as generated_run
from conformance.generated.defects import load_defects
from conformance.generated.drawing import Coverage, all_pairs, all_values, draw, pairs_of, plain
from conformance.generated.findings import find
from conformance.generated.outcomes import RIGHT, SINGLE, Judge
from conformance.generated.patterns import Shown, has, parse_pattern
from conformance.generated.recipes import Layer, Recipe, recipe_from, shapes_of
from conformance.generated.store import (
    ARRAYS,
    SMALL,
    GeneratedPack,
    Request,
    find_generated,
    require_generated,
)
from conformance.generated.vocabulary import OPERATIONS, REGISTRY
from conformance.plugin.table import outcome_of
from conformance.results.cases import writing
from conformance.verdict.tolerance import load_tolerances

tf = pytest.importorskip("tensorflow")
COUNT = 12


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> GeneratedPack:
    """A pack of the first models, for the importers whose converters TensorFlow brings along."""
    from conformance.reference.generated_pack import build_generated_pack

    root = tmp_path_factory.mktemp("packs")
    return build_generated_pack(Request(COUNT, 0, ("tensorflow", "tflite")), root, workers=1)


def judge_of(engine: str) -> Judge:
    """Return the judge of an OpenCV 5.0.0."""
    return Judge(load_tolerances(), "5.0.0", RunConfig(engine=engine))


def test_a_seed_gives_the_same_models() -> None:
    """The same seed gives the same models, and a greater number of them begins with those."""
    few, many = draw(40, 3), draw(80, 3)
    assert [recipe.key() for recipe in few] == [recipe.key() for recipe in many[:40]]
    assert len({recipe.key() for recipe in many}) == 80
    assert [recipe.key() for recipe in draw(40, 4)] != [recipe.key() for recipe in few]


def test_a_thousand_models_cover_what_is_promised() -> None:
    """1,000 models have every attribute value and 60 % of the pairs, all of the registry's."""
    covered = Coverage()
    for recipe in draw(1000, 0):
        covered.add(recipe)
    assert set(all_values()) <= covered.values
    pairs = all_pairs()
    assert len(covered.pairs & set(pairs)) >= 0.6 * len(pairs)
    often = [pair for pair in pairs if set(pair) <= set(REGISTRY)]
    assert len(set(often) - covered.pairs) <= 1


def test_small_runs_have_every_operation() -> None:
    """The first models have each operation of the vocabulary."""
    operations = {
        layer.operation for recipe in draw(len(OPERATIONS) + 40, 0) for layer in recipe.layers
    }
    assert operations == set(OPERATIONS)


def test_a_recipe_is_read_back() -> None:
    """What a recipe writes as JSON is read back as the same recipe, of the same key and words."""
    for recipe in draw(60, 1):
        again = recipe_from(json.loads(json.dumps(recipe.as_dict())), "here")
        assert (again.key(), again.words()) == (recipe.key(), recipe.words())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2"),
        ({"layers": [{"operation": "Conv9D", "attributes": {}, "inputs": [0]}]}, "Conv9D"),
        ({"layers": [{"operation": "relu", "attributes": {"x": 1}, "inputs": [0]}]}, "attributes"),
        ({"layers": [{"operation": "relu", "attributes": {}, "inputs": [1]}]}, "before it"),
        ({"head": "none"}, "head 'none'"),
        ({"input": [3]}, "no recipe"),
    ],
    ids=["schema", "operation", "attribute", "wiring", "head", "input"],
)
def test_bad_recipe_is_refused(change: dict[str, Any], says: str) -> None:
    """A recipe of a newer schema, or one that means nothing, is refused by name."""
    values = {**draw(1, 0)[0].as_dict(), **change}
    with pytest.raises(ConformanceError, match=f"file: m.*{says}|file.*{says}"):
        recipe_from(values, "file: m")


def test_shapes_are_keras_own() -> None:
    """Each operation, with each value of each attribute, gives the shape that Keras gives."""
    from conformance.reference.generated import apply

    checked = 0
    image = (14, 14, 8)
    for name, operation in OPERATIONS.items():
        values = [(a, v) for a, options in operation.attributes.items() for v in options]
        for change in [{}, *({a: v} for a, v in values)]:
            layer = Layer(name, plain(name, **change), (0, 0) if operation.merges else (0,))
            recipe = Recipe((14, 14, 3), (layer,))
            known = shapes_of(recipe)
            if known is None:
                continue
            x = tf.keras.Input(image)
            given = [x] * len(layer.inputs)
            assert tuple(apply(layer, given, f"n{checked}", known, 1).shape[1:]) == known[1], layer
            checked += 1
    assert checked > 300


def test_float64_without_a_kernel() -> None:
    """What TensorFlow has no float64 kernel for is written out, and agrees with its float32."""
    from conformance.reference.graph.precision import _weights

    x = np.random.default_rng(0).uniform(-1, 1, (2, 7, 9, 5)).astype(np.float32)
    for half, corners in ((True, False), (False, False), (False, True)):
        resized = tf.compat.v1.image.resize_bilinear(
            x, (12, 5), align_corners=corners, half_pixel_centers=half
        )
        rows, columns = _weights(7, 12, half, corners), _weights(9, 5, half, corners)
        stated = np.einsum("ih,bhwc,jw->bijc", rows, x.astype(np.float64), columns)
        np.testing.assert_allclose(stated, resized.numpy(), atol=2e-6)


def test_values_move_with_the_images(pack: GeneratedPack) -> None:
    """No model's softmax has all in one class: what goes wrong before it would not be seen."""
    with np.load(pack.path / ARRAYS) as arrays:
        softmaxes = [
            arrays[f"{key}/f64"] for key, recipe in pack.recipes.items() if recipe.head == "gap"
        ]
    assert softmaxes
    assert all(values.max(axis=1).min() < 0.99 for values in softmaxes)


def test_models_are_judged_in_one_process(pack: GeneratedPack) -> None:
    """Every model of the pack gets an outcome; ordinary operations are right on each importer."""
    for importer in ("tensorflow", "tflite"):
        found = list(
            generated_run.outcomes_of(pack, RunConfig(importer), judge_of("classic").judge)
        )
        assert {outcome.key for outcome in found} == set(pack.judged(importer))
        right = {o.key for o in found if o.run == "single" and o.symptom == RIGHT}
        plain_ones = {
            key
            for key, recipe in pack.recipes.items()
            if {layer.operation for layer in recipe.layers} <= {"relu", "Conv2D", "Add"}
        }
        assert plain_ones <= right


def test_a_wrong_answer_is_told(pack: GeneratedPack, tmp_path: Path) -> None:
    """Where the truth is another than OpenCV's answer, a model is wrong, at a place with values."""
    (tmp_path / "files.npz").write_bytes((pack.path / "files.npz").read_bytes())
    with np.load(pack.path / "arrays.npz") as arrays:
        changed = {n: v * 1.01 if n.endswith(("/f32", "/f64")) else v for n, v in arrays.items()}
    np.savez(tmp_path / "arrays.npz", **changed)
    bad = replace(pack, path=tmp_path)
    found = list(generated_run.outcomes_of(bad, RunConfig(), judge_of("classic").judge))
    wrong = [outcome for outcome in found if outcome.symptom == "wrong"]
    assert len(wrong) >= COUNT // 2
    for one in wrong:
        assert one.deviation is not None
        assert one.allowed is not None
        assert one.deviation > one.allowed > 0
        assert one.values is not None


def test_a_target_without_winograd_is_held_to_less() -> None:
    """OpenCL, whose kernels have no Winograd convolution, may stray by the plain multiple only."""
    truth = np.random.default_rng(0).standard_normal((2, 10))
    arrays: Any = {"f64": truth, "f32": np.float32(truth * 1.001)}
    outputs = arrays["f32"] + 1
    allowed = []
    for target in ("cpu", "opencl"):
        judge = Judge(load_tolerances(), "5.0.0", RunConfig(target=target))
        answers = {"outputs": outputs, "again": outputs}
        (outcome,) = judge.judge("key", arrays, answers, batches=False)
        assert outcome.allowed is not None
        allowed.append(outcome.allowed)
    rule = load_tolerances().rules["output_linf"]
    assert allowed[1] / allowed[0] == pytest.approx(rule.multiple / rule.multiple_winograd)


def test_a_crash_costs_one_model(pack: GeneratedPack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while it reads a model takes that model alone along."""
    keys = pack.judged("tensorflow")
    victim = keys[3]
    monkeypatch.setattr(generated_run, "CHILD", "conformance.selftest.sabotaged_generated")
    monkeypatch.setenv("SABOTAGED_MODEL", victim)
    found = list(generated_run.outcomes_of(pack, RunConfig(), judge_of("classic").judge))
    dead = [outcome for outcome in found if outcome.symptom == "crash"]
    assert [(one.key, one.stage, one.detail) for one in dead] == [(victim, "parse", "SIGSEGV")]
    assert {outcome.key for outcome in found} == set(keys)


def test_a_model_that_hangs_is_ended(pack: GeneratedPack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that goes on for ever is ended by its own time limit, and the rest is judged."""
    victim = pack.judged("tensorflow")[2]
    monkeypatch.setattr(generated_run, "CHILD", "conformance.selftest.sabotaged_generated")
    monkeypatch.setattr(generated_run, "SECONDS", 1.0)
    monkeypatch.setenv("SABOTAGED_MODEL", victim)
    monkeypatch.setenv("SABOTAGE", "hang")
    found = list(generated_run.outcomes_of(pack, RunConfig(), judge_of("classic").judge))
    assert [one.key for one in found if one.symptom == "hang"] == [victim]


@pytest.mark.parametrize("where", ["build_generated", "convert"])
@pytest.mark.parametrize(
    ("shortage", "raised"),
    [
        (RuntimeError("frozen.pb; No space left on device"), OSError),
        (MemoryError("4 GiB"), MemoryError),
    ],
)
def test_no_room_is_no_refusal(
    pack: GeneratedPack,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    shortage: Exception,
    raised: type[Exception],
) -> None:
    """A full disk or memory ends the build; no model is left out, and no converter refuses it."""
    from conformance.reference.generated_pack import build_part

    def short(*_: object) -> None:
        raise shortage

    recipe = draw(1, 0)[0]
    (entry,), _, _ = build_part([recipe], ["tensorflow", "tflite"])
    assert "tflite" in entry["operations"]
    monkeypatch.setattr(f"conformance.reference.generated.{where}", short)
    with pytest.raises(raised):
        build_part([recipe], ["tensorflow", "tflite"])


def test_a_pack_is_found_for_fewer_models(pack: GeneratedPack) -> None:
    """A pack serves a request for its first models and for fewer importers, and no greater one."""
    root = pack.path.parent.parent
    fewer = find_generated(root, Request(5, 0))
    assert fewer is not None
    assert list(fewer.models) == list(pack.models)[:5]
    for greater in (Request(COUNT + 1, 0), Request(5, 1), Request(5, 0, ("tensorflow", "onnx"))):
        with pytest.raises(ConformanceError, match="no pack of generated models"):
            require_generated(root, greater)


def line(key: str, symptom: str, recipe: Recipe, run: str = "single") -> dict[str, Any]:
    """Return a line of a results file."""
    return {
        "kind": "generated",
        "key": key,
        "run": run,
        "symptom": symptom,
        "deviation": 0.5 if symptom == "wrong" else None,
        "allowed": 1e-5 if symptom == "wrong" else None,
        "layers": recipe.words(),
        "operations": [["Op", 1]],
    }


def test_one_cause_is_one_finding() -> None:
    """Models that fail for one attribute make one finding, with the versions on either side."""
    recipes = {recipe.key(): recipe for recipe in draw(300, 0)}
    pattern = parse_pattern("here", "Softmax axis=1")
    guilty = {key for key, recipe in recipes.items() if has(Shown(recipe), pattern)}
    assert len(guilty) > 1
    lines = {
        version: {
            key: line(key, "wrong" if key in guilty and version != "4.9.0" else RIGHT, recipe)
            for key, recipe in recipes.items()
        }
        for version in ("4.9.0", "4.10.0", "5.0.0")
    }
    (found,) = find({(RunConfig(), "single"): lines}, recipes)
    assert (found.pattern, found.symptom, found.silent) == ("Softmax axis=1", "wrong", True)
    assert (found.bad, found.good) == (["4.10.0", "5.0.0"], ["4.9.0"])
    assert set(found.cases) == guilty
    assert (found.deviation, found.known) == (0.5, None)


def test_known_defects_are_matched(tmp_path: Path) -> None:
    """A finding that an entry describes is known by its name, whatever symptoms it takes."""
    file = tmp_path / "defects.toml"
    file.write_text(
        'schema = 1\n[[defect]]\nname = "any"\nimporter = "onnx"\nopencv = ">=5"\n'
        'symptom = ["shape", "crash"]\npattern = "*"\nreason = "a batch keeps an axis"\n'
    )
    recipes = {recipe.key(): recipe for recipe in draw(10, 0)}
    symptoms = ("shape", "crash")
    lines = {
        key: line(key, symptoms[n % 2], recipe, "batch")
        for n, (key, recipe) in enumerate(recipes.items())
    }
    (found,) = find({(RunConfig("onnx"), "batch"): {"5.0.0": lines}}, recipes, load_defects(file))
    assert (found.known, found.symptom, len(found.cases)) == ("any", "crash", 10)


def test_refusals_are_told_apart_by_reason(tmp_path: Path) -> None:
    """Each reason that OpenCV gives is a finding, blamed on the operation that it names.

    An entry that quotes one of them knows that one alone.
    """
    recipes = {recipe.key(): recipe for recipe in draw(12, 0)}
    reasons = ["Unsupported operator type NEG", "total == maskTotal"]
    lines = {
        key: {
            **line(key, "refused", recipe),
            "detail": f"{reasons[n % 2]} (-213:Parsing error, f, tflite_importer.cpp:{n})",
            "operations": [["NEG", 1], ["MUL", 1]],
        }
        for n, (key, recipe) in enumerate(recipes.items())
    }
    file = tmp_path / "defects.toml"
    file.write_text(
        'schema = 1\n[[defect]]\nname = "neg"\nimporter = "tflite"\nsymptom = "refused"\n'
        'pattern = "[NEG]"\nsays = "type NEG"\nrun = "single"\nreason = "not there"\n'
    )
    observed = {(RunConfig("tflite"), "single"): {"5.0.0": lines}}
    found = {one.detail.split(" (")[0]: one for one in find(observed, recipes)}
    assert sorted(found) == sorted(reasons)
    assert found[reasons[0]].pattern == "[NEG]"
    assert [len(one.cases) for one in found.values()] == [6, 6]
    known = {
        one.detail.split(" (")[0]: one.known for one in find(observed, recipes, load_defects(file))
    }
    assert known == {reasons[0]: "neg", reasons[1]: None}


def test_a_file_s_failure_is_told_its_defect(tmp_path: Path) -> None:
    """A model without a recipe is told the defects of its operations or of OpenCV's words alone."""
    entries = {
        "words": 'pattern = "*"\nsays = "type NEG"',
        "operation": 'pattern = ["relu", "[MirrorPad]"]',
        "layers": 'pattern = "relu"',
    }
    file = tmp_path / "defects.toml"
    file.write_text(
        "schema = 1\n"
        + "".join(
            f'[[defect]]\nname = "{name}"\nimporter = "onnx"\nsymptom = "wrong"\nreason = "r"\n'
            f'opencv = "<5"\ninstead = "wait"\n{entry}\n'
            for name, entry in entries.items()
        )
    )

    def told(operations: list[str], message: str) -> list[str]:
        return [one.name for one in load_defects(file) if one.explains(operations, message)]

    assert told(["Relu"], "Unsupported type NEG") == ["words"]
    assert told(["MirrorPad"], "strays") == told([], "node MirrorPad strays") == ["operation"]
    assert told(["Relu"], "strays at relu") == []
    assert "(OpenCV <5, any engine): r; what avoids it: wait" in str(load_defects(file)[0])


def test_a_model_that_a_defect_spares_has_passed() -> None:
    """A case that was expected to fail by a defect of many models, and passes, counts as passed."""
    phase = {"when": "call", "wasxfail": "a batch keeps an axis"}
    assert outcome_of(SimpleNamespace(outcome="passed", **phase)) == "passed"
    assert outcome_of(SimpleNamespace(outcome="skipped", **phase)) == "xfailed"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('symptom = "wrong"\npattern = "relu"\nrun = "both"', "run = 'both'"),
        ('symptom = "odd"\npattern = "relu"', "unknown symptom 'odd'"),
        ('symptom = "wrong"\npattern = "reluu"', "unknown operation 'reluu'"),
        ('symptom = "wrong"\npattern = "Conv2D colour=1"', "no attribute 'colour'"),
        ('symptom = "wrong"', "'pattern' is missing"),
    ],
    ids=["run", "symptom", "operation", "attribute", "missing"],
)
def test_bad_defect_is_refused(tmp_path: Path, entry: str, says: str) -> None:
    """An entry that can match nothing is refused with its place."""
    file = tmp_path / "defects.toml"
    file.write_text(
        f'schema = 1\n[[defect]]\nname = "x"\nimporter = "onnx"\nreason = "r"\n{entry}\n'
    )
    with pytest.raises(ConformanceError, match=r"\[\[defect\]\] 1.*" + says):
        load_defects(file)


def results(path: Path, version: str, seed: int, symptom: str) -> Path:
    """Write a results file of ten generated models, all of one outcome."""
    header = {
        "opencv": {"version": version, "distribution": "opencv"},
        "conformance": "0",
        "engine": "classic",
        "importer": "tensorflow",
        "backend": "default",
        "target": "cpu",
        "keras": "keras3",
        "graph": "opencv",
        "weights": "synthetic",
        "environment": {"python": "3.11", "numpy": "2", "cpu": "x", "threads": 1},
        "packs": {},
        "generated": {"count": 10, "seed": seed, "digest": "d"},
    }
    with writing(path, header) as writer:
        for recipe in draw(10, seed):
            writer.write(line(recipe.key(), symptom, recipe))
    return path


def test_findings_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """findings prints each finding as JSON; the status is 1 where one is not known, else 0."""
    good = results(tmp_path / "a.jsonl", "4.9.0", 0, RIGHT)
    assert main(["findings", str(good)]) == 0
    capsys.readouterr()
    bad = results(tmp_path / "b.jsonl", "5.0.0", 0, "wrong")
    none = tmp_path / "none.toml"
    none.write_text("schema = 1\n")
    asked = ["findings", str(good), str(bad), "--known-defects", str(none), "--format", "json"]
    assert main(asked) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert {"id", "bad", "good", "operations", "layers", "input", "cases", "known"} <= set(found)
    assert (found["bad"], found["good"], found["pattern"]) == (["5.0.0"], ["4.9.0"], "*")


def test_findings_of_different_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of another seed are refused by name, and so are results without generated models."""
    first = results(tmp_path / "a.jsonl", "4.9.0", 0, RIGHT)
    other = results(tmp_path / "b.jsonl", "5.0.0", 1, RIGHT)
    assert main(["findings", str(first), str(other)]) == 2
    assert f"{other} is of other generated models" in capsys.readouterr().err
    baseline = Path(__file__).parents[2] / "fixtures" / "baselines" / "4.14.0-classic.jsonl"
    assert main(["findings", str(baseline)]) == 2
    assert "none of the results has generated models" in capsys.readouterr().err


def test_no_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """--generated 0 is a usage error with one message."""
    assert main(["pack", "build", "--generated", "0"]) == 2
    assert "--generated 0: give 1 or more" in capsys.readouterr().err


def test_pytest_judges_a_pack(pack: GeneratedPack, tmp_path: Path) -> None:
    """pytest -m generated judges a pack's models; a known defect is expected, a new one fails."""
    root = pack.path.parent.parent
    options = ["--pyargs", "conformance.suite", "-p", "no:cacheprovider", "-m", "generated"]
    options += [f"--packs={root}", "--generated", str(COUNT), "--engine", "default", "-q"]
    options += ["--results", "results"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (file,) = (tmp_path / "results").glob("*.jsonl")
    found = [json.loads(text) for text in file.read_text().splitlines()]
    assert len([x for x in found if x["kind"] == "generated"]) >= COUNT


def collected(*options: str) -> subprocess.CompletedProcess[str]:
    """Return how pytest ended that collected the suite."""
    command = [sys.executable, "-m", "pytest", "conformance/suite", "--collect-only", "-q"]
    here = Path(__file__).parents[2]
    return subprocess.run([*command, *options], capture_output=True, text=True, cwd=here)


def test_switches_leave_generated_models_out() -> None:
    """A run of switches judges whole models only; a plain run has the small ones beside them."""
    both, switched = collected(), collected("--winograd", "off")
    assert both.returncode == switched.returncode == 0, switched.stdout
    assert both.stdout.count("test_generated.py::test_single[") >= SMALL
    assert "test_generated.py::test_single[" not in switched.stdout
    assert "test_agreement.py::test_top1[" in switched.stdout


def test_bad_known_defects_are_a_usage_error(tmp_path: Path) -> None:
    """A file of known defects that can't be read ends the run with one message and status 4."""
    file = tmp_path / "defects.toml"
    file.write_text("schema = 9\n")
    ended = collected("--known-defects", str(file))
    assert ended.returncode == 4
    assert f"ERROR: {file}: schema = 9" in ended.stdout + ended.stderr
    assert "INTERNALERROR" not in ended.stdout + ended.stderr


def test_pairs_are_of_neighbours() -> None:
    """A pair is of a layer and one that it takes, not of the input."""
    recipe = Recipe((14, 14, 3), (Layer("relu", {}, (0,)), Layer("Flatten", {}, (1,))))
    assert list(pairs_of(recipe)) == [("relu", "Flatten")]


def test_defect_of_a_target_or_a_level_is_of_no_other(tmp_path: Path) -> None:
    """An entry that names a target or CPU features explains failures there alone."""
    file = tmp_path / "defects.toml"
    entry = (
        '[[defect]]\nname = "{}"\nimporter = "onnx"\nsymptom = "wrong"\npattern = "*"\n'
        'reason = "r"\n{}\n'
    )
    text = entry.format("a", 'target = "opencl"') + entry.format("b", 'cpu_disabled = "AVX2"')
    file.write_text("schema = 1\n" + text, encoding="utf-8")
    of_target, of_level = load_defects(file)
    plain = RunConfig("onnx")
    old = replace(plain, cpu="baseline", cpu_off=("AVX2", "FP16"))
    opencl = replace(plain, target="opencl")
    for defect, met in ((of_target, opencl), (of_level, old)):
        about = [one for one in (plain, old, opencl) if defect.concerns(one, "4.7.0", SINGLE)]
        assert about == [met]
