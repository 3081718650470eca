"""All that the suite asserts of one run at once, for those who need the whole verdict as data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Optional

from conformance.candidate import CandidateRun, RunConfig
from conformance.cli.options import DECIDING, repeated
from conformance.errors import ConformanceError
from conformance.opencv.levels import BASELINE
from conformance.pack.format import Pack
from conformance.pack.sampling import SAMPLED
from conformance.session import Session
from conformance.verdict import judge
from conformance.verdict.checks import (
    OUTPUT_METRICS,
    is_clean,
    judge_run,
    outputs_of,
)
from conformance.verdict.judge import Sides
from conformance.verdict.nodes import describe, first_bad

from .cutting import first_fused


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
        for judgement in judge_run(session.limits, pack, run)
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
    if run.layer_samples and first_bad(session.limits.profile(pack, run)) is None:
        index = unread_input(session, pack, run)
        if index is not None:
            focused = session.focus(pack, index)
            return focused, session.run(focused, run.config)
    return pack, run


def _blamed(session: Session, pack: Pack, run: CandidateRun) -> Iterator[str]:
    """Tell the first bad node, on the inputs whose nodes are read or on the one that strays."""
    nodes = session.limits.profile(pack, run)
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
        nodes = session.limits.profile(focused, alone) if alone.layer_samples else []
        first = first_bad(nodes)
        state = describe(first, nodes) if first else _all_well(run.config)
        yield f"on {focused.manifest.inputs[0]!r} {state}"
    fused = first_fused(session, focused, alone) if _vanishes(session, focused, alone) else None
    if fused:
        yield str(fused)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def _all_well(config: RunConfig) -> str:
    plain = ", read without fusion and Winograd," if config.engine == "classic" else ""
    return f"every node{plain} stays in the noise"


def _tapped(session: Session, pack: Pack, run: CandidateRun) -> Iterator[str]:
    """Tell whether the (first) outputs stray as far while the layers are read."""
    vanishes = _vanishes(session, pack, run)
    if vanishes is not None:
        state, shift = (
            "vanishes" if vanishes else "stays",
            run.of_head(0, pack.output_shape).tap_shift,
        )
        yield (
            f"the deviation of the outputs {state} while all layers are read, which moves the "
            f"outputs by {shift:.2g}"
        )


def _vanishes(session: Session, pack: Pack, run: CandidateRun) -> Optional[bool]:
    """Return whether the (first) outputs stray no longer while the layers are read.

    None where they do not stray on the inputs SAMPLED, or were not read.
    """
    run, first = run.of_head(0, pack.output_shape), outputs_of(pack, run)[0]
    if run.tapped is None or run.outputs is None or run.tapped.shape[1:] != run.outputs.shape[1:]:
        return None
    names, truth = pack.manifest.inputs[SAMPLED], pack.load("outputs_f64")[SAMPLED]
    allowance = session.limits.allow(pack, run.config, first.metric("softmax_l1_sum")).of(SAMPLED)
    plain, tapped = (
        judge.judge_distance(Sides(names, outputs, truth), allowance)
        for outputs in (run.outputs[SAMPLED], run.tapped)
    )
    return None if plain.passed else tapped.passed


_WINOGRAD_OFF = "--winograd off"
_REMEDIES: dict[str, dict[str, Any]] = {
    "--target cpu": {"target": "cpu"},
    "no --cpu-disable": {"cpu": "", "cpu_off": ()},
    _WINOGRAD_OFF: {"winograd": False},
    "--fusion off": {"fusion": False},
}


def _with_winograd(session: Session, pack: Pack, config: RunConfig) -> Iterator[str]:
    """Tell the first bad node of a run that reads the nodes as Winograd computes them."""
    run = session.run(pack, config)
    nodes = session.limits.profile(pack, run) if run.layer_samples else []
    first = first_bad(nodes)
    if first is not None:
        yield f"with --winograd on {describe(first, nodes)}"


def _remedies(session: Session, pack: Pack, config: RunConfig) -> Iterator[str]:
    """Yield what makes the run clean: the usual target or CPU, or a switch turned off."""
    for remedy, changes in _REMEDIES.items():
        other = replace(config, **changes)
        if other != config and is_clean(session.limits, pack, session.run(pack, other)):
            yield remedy


def localize_command(session: Session, model: str, config: RunConfig) -> str:
    """Return the command that prints the profile of this run."""
    choices = session.choices
    own = choices.own.get(model)
    names = {option: option.lstrip("-") for option in DECIDING}
    values = {option: getattr(config, n, getattr(choices, n, None)) for option, n in names.items()}
    values["--weights"] = choices.weights if own is None else None
    if config.cpu:
        values["--cpu-disable"] = [
            config.cpu if config.cpu == BASELINE else ",".join(config.cpu_off)
        ]
    words = ["python", "-m", "conformance", "localize", *(own.words if own else (model,))]
    return shlex.join([*words, *(word for pair in repeated(values) for word in pair)])
