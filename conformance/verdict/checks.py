"""All that the suite asserts of one run at once, for those who need the whole verdict as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional

from conformance.candidate import BATCH, CandidateRun, RunConfig
from conformance.pack.format import Pack
from conformance.pack.sampling import SAMPLED

from . import judge
from .judge import Sides, judge_distance
from .judgement import Judgement, worst_of
from .limits import Limits
from .metrics import Array
from .nodes import NodeDeviation, judge_layers
from .tolerance import Allowance

SOFTMAX_METRICS = ("softmax_l1_sum", "softmax_l1_mean", "softmax_linf")
LOGITS_METRICS = ("logits_l1_mean", "logits_linf")
OUTPUT_METRICS = (
    *SOFTMAX_METRICS,
    *(name.replace("softmax", "output") for name in SOFTMAX_METRICS),
)


def judge_run(
    limits: Limits,
    pack: Pack,
    run: CandidateRun,
    nodes: Optional[Sequence[NodeDeviation]] = None,
) -> list[Judgement]:
    """Return every judgement that the suite's tests make of `run`.

    What has no arrays, because its stage failed, is left out: run.failures tells of it.
    nodes: limits.profile(pack, run), from a caller that has it already.
    """
    found = list(_judge_outputs(limits, pack, run))
    if run.layer_samples:
        found.append(judge_layers(limits.profile(pack, run) if nodes is None else nodes))
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


def _judge_outputs(limits: Limits, pack: Pack, run: CandidateRun) -> Iterator[Judgement]:
    if run.outputs is not None:
        for output in outputs_of(pack, run):
            yield from map(output.named, _judge_output(limits, output))


def _judge_output(limits: Limits, output: Output) -> Iterator[Judgement]:
    pack, run, sides = output.pack, output.run, output.sides
    truth = pack.load("logits_f64")

    def allow(metric: str) -> Allowance:
        return limits.allow(pack, run.config, metric)

    yield from (judge.judge_shape(sides), judge.judge_dtype(sides), judge.judge_finite(sides))
    if output.is_softmax:
        yield judge.judge_sums_to_one(sides, limits.tolerances.sums_to_one_eps)
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


def judge_file(limits: Limits, pack: Pack, answers: Callable[[Pack], Array], who: str) -> Judgement:
    """Return how far a file strays that OpenCV is given, run by its own runtime: the worst output.

    answers: of the pack as one output sees it, what the runtime gives, [N, C]. who: that in words.
    """
    found = []
    for output in pack.heads():
        sides = Sides(pack.manifest.inputs, answers(output), output.load("outputs_f64"), who)
        allowance = limits.allow(output, RunConfig(winograd=False), "frozen_l1_sum")
        found.append(replace(judge_distance(sides, allowance), output=output.output_name))
    return worst_of(found)


def is_clean(limits: Limits, pack: Pack, run: CandidateRun) -> bool:
    """Return whether the run answered and every judgement of it passes."""
    return not run.failures and all(j.passed for j in judge_run(limits, pack, run))
