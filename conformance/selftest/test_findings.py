"""Findings: what the generated models that fail have in common, and the defects known of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance.candidate import RunConfig
from conformance.cli.main import main
from conformance.errors import ConformanceError
from conformance.generated.defects import load_defects
from conformance.generated.drawing import draw
from conformance.generated.findings import find
from conformance.generated.outcomes import RIGHT, SINGLE
from conformance.generated.patterns import Shown, has, parse_pattern
from conformance.plugin.table import outcome_of
from conformance.results.cases import writing

from .sample_generated import line


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
