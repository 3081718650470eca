"""All that the suite asserts of one run at once, for those who need the whole verdict as data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Optional

from .opencv.records import BATCH, CandidateRun, RunConfig
from .pack import SAMPLED, Pack, default_packs
from .session import Session, switches
from .verdict import judge
from .verdict.judge import Judgement, Sides
from .verdict.localize import describe, first_bad, judge_layers
from .verdict.tolerance import Allowance

SOFTMAX_METRICS = ("softmax_l1_sum", "softmax_l1_mean", "softmax_linf")
LOGITS_METRICS = ("logits_l1_mean", "logits_linf")


def judge_run(session: Session, pack: Pack, run: CandidateRun) -> list[Judgement]:
    """Return every judgement that the suite's tests make of `run`.

    What has no arrays, because its stage failed, is left out: run.failures tells of it.
    """
    found = list(_judge_outputs(session, pack, run))
    if run.layer_samples:
        found.append(judge_layers(session.profile(pack, run)))
    return found


def _judge_outputs(session: Session, pack: Pack, run: CandidateRun) -> Iterator[Judgement]:
    if run.outputs is None:
        return
    sides = Sides(pack.manifest.inputs, run.outputs, pack.load("outputs_f64"))
    truth = pack.load("logits_f64")

    def allow(metric: str) -> Allowance:
        return session.allow(pack, run.config, metric)

    yield from (judge.judge_shape(sides), judge.judge_dtype(sides), judge.judge_finite(sides))
    yield judge.judge_sums_to_one(sides, session.tolerances.sums_to_one_eps)
    yield from (judge.judge_top(sides, truth, allow("logits_linf"), k) for k in (1, 5))
    yield from (judge.judge_distance(sides, allow(metric)) for metric in SOFTMAX_METRICS)
    if run.logits is not None:
        for metric in LOGITS_METRICS:
            some = allow(metric).of(SAMPLED)
            yield judge.judge_logits(sides.of(SAMPLED), run.logits, truth[SAMPLED], some)
    if run.batch is not None:
        first = slice(BATCH)
        yield judge.judge_batch(sides.of(first), run.batch, allow("batch_linf").of(first))
    if run.repeat is not None:
        yield judge.judge_repeat(sides, run.repeat)


def is_clean(session: Session, pack: Pack, run: CandidateRun) -> bool:
    """Return whether the run answered and every judgement of it passes."""
    return not run.failures and all(j.passed for j in judge_run(session, pack, run))


def diagnose(session: Session, pack: Pack, config: RunConfig) -> list[str]:
    """Return in words where a run that fails leaves the noise, and what makes that vanish."""
    run = session.run(pack, config)
    lines = []
    if run.layer_samples:
        nodes = session.profile(pack, run)
        first = first_bad(nodes)
        plain = "every node, read without fusion and Winograd, stays in the noise"
        lines.append(describe(first, nodes) if first else plain)
        lines += _tapped(session, pack, run)
    lines += [f"vanishes with {option}" for option in _remedies(session, pack, config)]
    return [*lines, f"node by node: {localize_command(session, pack.model, config)}"]


def _tapped(session: Session, pack: Pack, run: CandidateRun) -> Iterator[str]:
    """Tell whether the outputs stray as far while the layers are read."""
    if run.tapped is None or run.outputs is None or run.tapped.shape[1:] != run.outputs.shape[1:]:
        return
    names, truth = pack.manifest.inputs[SAMPLED], pack.load("outputs_f64")[SAMPLED]
    allowance = session.allow(pack, run.config, "softmax_l1_sum").of(SAMPLED)
    plain, tapped = (
        judge.judge_distance(Sides(names, outputs, truth), allowance)
        for outputs in (run.outputs[SAMPLED], run.tapped)
    )
    if not plain.passed:
        state = "vanishes" if tapped.passed else "stays"
        shift = f"which moves the outputs by {run.tap_shift:.2g}"
        yield f"the deviation of the outputs {state} while all layers are read, {shift}"


def _remedies(session: Session, pack: Pack, config: RunConfig) -> Iterator[str]:
    """Yield the switches that, turned off, make the run clean."""
    without = {
        "winograd": replace(config, winograd=False),
        "fusion": replace(config, fusion=False),
    }
    for switch, other in without.items():
        if getattr(config, switch) is None and is_clean(session, pack, session.run(pack, other)):
            yield f"--{switch} off"


def localize_command(session: Session, model: str, config: RunConfig) -> str:
    """Return the command that prints the profile of this run."""
    command = ["python", "-m", "conformance", "localize", model, "--engine", config.engine]
    root = session.packs_root
    settings: dict[str, Optional[str]] = {
        "--importer": None if config.importer == RunConfig().importer else config.importer,
        "--packs": None if root == default_packs() else str(root),
        "--weights": None if session.weights == "synthetic" else session.weights,
        "--graph": None if session.graph == "opencv" else session.graph,
        "--target": None if config.target == "cpu" else config.target,
        "--threads": None if config.threads is None else str(config.threads),
    }
    for name, value in settings.items():
        command += [name, value] if value is not None else []
    for state in filter(None, switches(config).split("-")):
        switch, _, on = state.partition("_")
        command += [f"--{switch}", on]
    return shlex.join(command)
