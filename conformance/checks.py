"""All that the suite asserts of one run at once, for those who need the whole verdict as data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from .errors import ConformanceError
from .opencv.records import BATCH, CandidateRun, RunConfig
from .pack import SAMPLED, Pack, default_packs
from .session import Session, switches
from .verdict import judge
from .verdict.judge import Judgement, Sides
from .verdict.localize import describe, first_bad, judge_layers
from .verdict.tolerance import Allowance

SOFTMAX_METRICS = ("softmax_l1_sum", "softmax_l1_mean", "softmax_linf")
LOGITS_METRICS = ("logits_l1_mean", "logits_linf")
OUTPUT_METRICS = (
    *SOFTMAX_METRICS,
    *(name.replace("softmax", "output") for name in SOFTMAX_METRICS),
)


def judge_run(session: Session, pack: Pack, run: CandidateRun) -> list[Judgement]:
    """Return every judgement that the suite's tests make of `run`.

    What has no arrays, because its stage failed, is left out: run.failures tells of it.
    """
    found = list(_judge_outputs(session, pack, run))
    if run.layer_samples:
        found.append(judge_layers(session.profile(pack, run)))
    return found


@dataclass(frozen=True)
class Output:
    """One of a model's outputs, as the pack has it and as a run that answered gave it."""

    pack: Pack
    run: CandidateRun

    @property
    def sides(self) -> Sides:
        """OpenCV's values [N, C] beside the float64 truth."""
        assert self.run.outputs is not None
        return Sides(self.pack.manifest.inputs, self.run.outputs, self.pack.load("outputs_f64"))

    @property
    def is_softmax(self) -> bool:
        """Whether the values of an image sum to 1."""
        return self.pack.kind == "softmax"

    @property
    def ranked(self) -> int:
        """How many of the best classes have an order: none of a map or of a single value."""
        shape = self.pack.output_shape
        classes = self.pack.load("outputs_f64").shape[1]
        return classes if classes > 1 and sum(side > 1 for side in shape or [2]) == 1 else 0

    @property
    def has_logits(self) -> bool:
        """Whether there are values that nothing squeezes: before the softmax, or the output."""
        return self.pack.kind != "values" or self.ranked > 0

    def metric(self, name: str) -> str:
        """Return the metric that measures as `name`, "softmax_…", does a softmax."""
        return name if self.is_softmax else name.replace("softmax", "output")

    def named(self, judgement: Judgement) -> Judgement:
        """Return the judgement with the output's name, where the model has several."""
        return replace(judgement, output=self.pack.output_name)


def outputs_of(pack: Pack, run: CandidateRun) -> list[Output]:
    """Return each of the model's outputs."""
    return [Output(p, run.of_head(p.head, p.output_shape)) for p in pack.heads()]


def _judge_outputs(session: Session, pack: Pack, run: CandidateRun) -> Iterator[Judgement]:
    if run.outputs is not None:
        for output in outputs_of(pack, run):
            yield from map(output.named, _judge_output(session, output))


def _judge_output(session: Session, output: Output) -> Iterator[Judgement]:
    pack, run, sides = output.pack, output.run, output.sides
    truth = pack.load("logits_f64")

    def allow(metric: str) -> Allowance:
        return session.allow(pack, run.config, metric)

    yield from (judge.judge_shape(sides), judge.judge_dtype(sides), judge.judge_finite(sides))
    if output.is_softmax:
        yield judge.judge_sums_to_one(sides, session.tolerances.sums_to_one_eps)
    for k in (1, 5):
        if output.ranked:
            best = min(k, output.ranked)
            yield judge.judge_top(sides, truth, allow("logits_linf"), best)
    metrics = map(output.metric, SOFTMAX_METRICS)
    yield from (judge.judge_distance(sides, allow(metric)) for metric in metrics)
    if run.logits is not None and output.has_logits:
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
        lines += [*_blamed(session, pack, run), *_tapped(session, pack, run)]
    remedies = list(_remedies(session, pack, config))
    lines += [f"vanishes with {option}" for option in remedies]
    if _WINOGRAD_OFF in remedies:
        lines += _with_winograd(session, pack, replace(config, winograd=True))
    return [*lines, f"node by node: {localize_command(session, pack.model, config)}"]


def unread_input(session: Session, pack: Pack, run: CandidateRun) -> Optional[int]:
    """Return the number of the input that a fault of the nodes shows on, where they are not read.

    None where the outputs stray no farther than they may, or stray most on one of the inputs
    SAMPLED, whose nodes the pack has.
    """
    names = pack.manifest.inputs
    strayed = {
        judgement.observed / judgement.allowed: judgement
        for judgement in judge_run(session, pack, run)
        if not judgement.passed and judgement.metric in OUTPUT_METRICS and judgement.allowed
    }
    worst = strayed[max(strayed)] if strayed else None
    if worst is None or worst.input is None or worst.input in names[SAMPLED]:
        return None
    return names.index(worst.input)


def where_bad(session: Session, pack: Pack, run: CandidateRun) -> tuple[Pack, CandidateRun]:
    """Return pack and run in which a node leaves the noise: those given, or of one input alone.

    The latter where every node stays in the noise on the inputs SAMPLED, and the outputs do not on
    another. Raises ConformanceError where that takes TensorFlow and there is none.
    """
    if run.layer_samples and first_bad(session.profile(pack, run)) is None:
        index = unread_input(session, pack, run)
        if index is not None:
            focused = session.focus(pack, index)
            return focused, session.run(focused, run.config)
    return pack, run


def _blamed(session: Session, pack: Pack, run: CandidateRun) -> Iterator[str]:
    """Tell the first bad node, on the inputs whose nodes are read or on the one that strays."""
    nodes = session.profile(pack, run)
    first = first_bad(nodes)
    if first is not None:
        yield describe(first, nodes)
        return
    yield f"on {_listed(pack.manifest.inputs[SAMPLED])} {_all_well(run.config)}"
    try:
        focused, alone = where_bad(session, pack, run)
    except ConformanceError as error:
        yield f"the nodes were not read on the worst input: {error}"
        return
    if focused is not pack:
        nodes = session.profile(focused, alone) if alone.layer_samples else []
        first = first_bad(nodes)
        told = describe(first, nodes) if first else _all_well(run.config)
        yield f"on {focused.manifest.inputs[0]!r} {told}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def _all_well(config: RunConfig) -> str:
    plain = ", read without fusion and Winograd," if config.engine == "classic" else ""
    return f"every node{plain} stays in the noise"


def _tapped(session: Session, pack: Pack, run: CandidateRun) -> Iterator[str]:
    """Tell whether the (first) outputs stray as far while the layers are read."""
    run, first = run.of_head(0, pack.output_shape), outputs_of(pack, run)[0]
    if run.tapped is None or run.outputs is None or run.tapped.shape[1:] != run.outputs.shape[1:]:
        return
    names, truth = pack.manifest.inputs[SAMPLED], pack.load("outputs_f64")[SAMPLED]
    allowance = session.allow(pack, run.config, first.metric("softmax_l1_sum")).of(SAMPLED)
    plain, tapped = (
        judge.judge_distance(Sides(names, outputs, truth), allowance)
        for outputs in (run.outputs[SAMPLED], run.tapped)
    )
    if not plain.passed:
        state = "vanishes" if tapped.passed else "stays"
        shift = f"which moves the outputs by {run.tap_shift:.2g}"
        yield f"the deviation of the outputs {state} while all layers are read, {shift}"


_WINOGRAD_OFF = "--winograd off"


def _with_winograd(session: Session, pack: Pack, config: RunConfig) -> Iterator[str]:
    """Tell the first bad node of a run that reads the nodes as Winograd computes them."""
    run = session.run(pack, config)
    nodes = session.profile(pack, run) if run.layer_samples else []
    first = first_bad(nodes)
    if first is not None:
        yield f"with --winograd on {describe(first, nodes)}"


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
    command = ["python", "-m", "conformance", "localize"]
    command += [*session.model_arguments(model, positional=True), "--engine", config.engine]
    root = session.packs_root
    settings: dict[str, Optional[str]] = {
        "--importer": None if config.importer == RunConfig().importer else config.importer,
        "--packs": None if root == default_packs() else str(root),
        "--target": None if config.target == "cpu" else config.target,
        "--threads": None if config.threads is None else str(config.threads),
    }
    for name, value in settings.items():
        command += [name, value] if value is not None else []
    for state in filter(None, switches(config).split("-")):
        switch, _, on = state.partition("_")
        command += [f"--{switch}", on]
    return shlex.join(command)
