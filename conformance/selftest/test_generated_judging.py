"""Generated models: the judging of many in one process, and by pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.candidate import RunConfig
from conformance.generated import run as generated_run
from conformance.generated.outcomes import RIGHT, Judge
from conformance.generated.store import SMALL, GeneratedPack
from conformance.verdict.tolerance import load_tolerances

from .sample_generated import PACKED

pytest.importorskip("tensorflow")


def judge_of(engine: str) -> Judge:
    """Return the judge of an OpenCV 5.0.0."""
    return Judge(load_tolerances(), "5.0.0", RunConfig(engine=engine))


def test_models_are_judged_in_one_process(generated_pack: GeneratedPack) -> None:
    """Every model of the pack gets an outcome; ordinary operations are right on each importer."""
    for importer in ("tensorflow", "tflite"):
        found = list(
            generated_run.outcomes_of(
                generated_pack, RunConfig(importer), judge_of("classic").judge
            )
        )
        assert {outcome.key for outcome in found} == set(generated_pack.judged(importer))
        right = {o.key for o in found if o.run == "single" and o.symptom == RIGHT}
        plain_ones = {
            key
            for key, recipe in generated_pack.recipes.items()
            if {layer.operation for layer in recipe.layers} <= {"relu", "Conv2D", "Add"}
        }
        assert plain_ones <= right


def test_a_wrong_answer_is_told(generated_pack: GeneratedPack, tmp_path: Path) -> None:
    """Where the truth is another than OpenCV's answer, a model is wrong, at a place with values."""
    (tmp_path / "files.npz").write_bytes((generated_pack.path / "files.npz").read_bytes())
    with np.load(generated_pack.path / "arrays.npz") as arrays:
        changed = {n: v * 1.01 if n.endswith(("/f32", "/f64")) else v for n, v in arrays.items()}
    np.savez(tmp_path / "arrays.npz", **changed)
    bad = replace(generated_pack, path=tmp_path)
    found = list(generated_run.outcomes_of(bad, RunConfig(), judge_of("classic").judge))
    wrong = [outcome for outcome in found if outcome.symptom == "wrong"]
    assert len(wrong) >= PACKED // 2
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


def test_a_crash_costs_one_model(
    generated_pack: GeneratedPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies while it reads a model takes that model alone along."""
    keys = generated_pack.judged("tensorflow")
    victim = keys[3]
    monkeypatch.setattr(generated_run, "CHILD", "conformance.selftest.sabotaged_generated")
    monkeypatch.setenv("SABOTAGED_MODEL", victim)
    found = list(generated_run.outcomes_of(generated_pack, RunConfig(), judge_of("classic").judge))
    dead = [outcome for outcome in found if outcome.symptom == "crash"]
    assert [(one.key, one.stage, one.detail) for one in dead] == [(victim, "parse", "SIGSEGV")]
    assert {outcome.key for outcome in found} == set(keys)


def test_a_model_that_hangs_is_ended(
    generated_pack: GeneratedPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that goes on for ever is ended by its own time limit, and the rest is judged."""
    victim = generated_pack.judged("tensorflow")[2]
    monkeypatch.setattr(generated_run, "CHILD", "conformance.selftest.sabotaged_generated")
    monkeypatch.setattr(generated_run, "SECONDS", 1.0)
    monkeypatch.setenv("SABOTAGED_MODEL", victim)
    monkeypatch.setenv("SABOTAGE", "hang")
    found = list(generated_run.outcomes_of(generated_pack, RunConfig(), judge_of("classic").judge))
    assert [one.key for one in found if one.symptom == "hang"] == [victim]


def test_pytest_judges_a_pack(generated_pack: GeneratedPack, tmp_path: Path) -> None:
    """pytest -m generated judges a pack's models; a known defect is expected, a new one fails."""
    root = generated_pack.path.parent.parent
    options = ["--pyargs", "conformance.suite", "-p", "no:cacheprovider", "-m", "generated"]
    options += [f"--packs={root}", "--generated", str(PACKED), "--engine", "default", "-q"]
    options += ["--results", "results"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (file,) = (tmp_path / "results").glob("*.jsonl")
    found = [json.loads(text) for text in file.read_text().splitlines()]
    assert len([x for x in found if x["kind"] == "generated"]) >= PACKED


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
