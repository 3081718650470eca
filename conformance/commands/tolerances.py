"""tolerances: measure the tolerances file again (needs TensorFlow)

The noise floor: how much another TensorFlow on the same graph (one thread or two, oneDNN or not)
strays, in noise floors of the pack. The multiples: how far the installed OpenCV strays, on each
engine, with and without Winograd, doubled, since another CPU sums in another order; elsewhere, if a
target or a CPU level is asked for. A multiple is only ever raised: other versions of OpenCV may
stray farther than the one at hand.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.candidate import RunConfig
from conformance.cli import OK
from conformance.cli.options import add_options, chosen_models
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError, imported
from conformance.fixtures import fixture_path
from conformance.pack.builder import require_tensorflow
from conformance.pack.format import Pack
from conformance.pack.request import keras_flavour, producer_versions
from conformance.pack.sealed import write_text
from conformance.processes.child import ask_module
from conformance.processes.machine import cpu_name
from conformance.session import Session, choices_of
from conformance.verdict.checks import judge_run
from conformance.verdict.limits import Limits
from conformance.verdict.metrics import METRICS

# What an allowed multiple is, in greatest ratios measured.
SAFETY = 2
SETTINGS = tuple((threads, onednn) for threads in (1, 2) for onednn in (True, False))
PLAIN, WINOGRAD = "multiple", "multiple_winograd"

Ratios = dict[str, tuple[float, str]]  # by metric: the greatest, and the model that has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `tolerances` takes."""
    add_options(parser.add_argument, "models", "--packs", "--engine", "--target", "--cpu-disable")
    parser.add_argument(
        "--update",
        type=Path,
        nargs="?",
        const=fixture_path("tolerances.toml"),
        metavar="FILE",
        help="write multiples and provenance to FILE (default: the suite's own)",
    )


def main(arguments: argparse.Namespace) -> int:
    """Measure and print; with --update write the file."""
    models = chosen_models(arguments.models)
    require_tensorflow(keras_flavour())
    session = Session(choices_of(vars(arguments)))
    session.build_missing(models, lambda event: print(event, file=sys.stderr, flush=True))
    packs = [session.pack(model) for model in models]
    noise = {setting: _greatest(_noise(pack, *setting) for pack in packs) for setting in SETTINGS}
    opencv = {kind: _opencv_ratios(session, packs, kind) for kind in (PLAIN, WINOGRAD)}
    _print_noise(noise)
    _print_opencv(session, opencv)
    if arguments.update:
        _update(arguments.update, _provenance(session, packs, noise, opencv), opencv)
        print(f"{arguments.update}: written")
    return OK


def _noise(pack: Pack, threads: int, onednn: bool) -> tuple[str, dict[str, float]]:
    """Return the model's name and its ratios in a TensorFlow set up so."""
    ratios = ask_module(
        "conformance.reference.noise",
        [str(pack.path), str(threads)],
        None,
        f"TensorFlow could not run {pack.model} on {threads} threads",
        TF_ENABLE_ONEDNN_OPTS=str(int(onednn)),
    )
    return pack.model, ratios


def _greatest(found: Any) -> Ratios:
    ratios: Ratios = {}
    for model, of_model in found:
        for metric, ratio in of_model.items():
            if ratio >= ratios.get(metric, (0.0, ""))[0]:
                ratios[metric] = (ratio, model)
    return ratios


def _opencv_ratios(session: Session, packs: Sequence[Pack], kind: str) -> Ratios:
    return _greatest(
        (pack.model, _required(session, pack, config))
        for pack in packs
        for config in session.variants()
        for config in configured(session.limits, pack, config, kind)
    )


def configured(limits: Limits, pack: Pack, config: RunConfig, kind: str) -> list[RunConfig]:
    """Return the runs that tell of a kind of multiple.

    5.0's new engine can't be kept from Winograd: it tells of the plain multiple where the graph has
    no convolution that could run so, else of Winograd's.
    """
    may = limits.may_winograd(pack, config)
    if config.engine == "new":
        return [config] if may == (kind == WINOGRAD) else []
    if kind == PLAIN:
        return [replace(config, winograd=False)]
    return [replace(config, winograd=True)] if may else []


def _required(session: Session, pack: Pack, config: RunConfig) -> dict[str, float]:
    """Return {metric: the multiple that would have been enough}."""
    run = session.run(pack, config)
    if run.failures:
        raise ConformanceError(f"no tolerances from a run that fails: {run.failures[0]}")
    judged = judge_run(session.limits, pack, run)
    needed = {j.metric: j.required for j in judged if j.metric in METRICS}
    return {metric: value for metric, value in needed.items() if value is not None}


def _print_noise(noise: dict[tuple[int, bool], Ratios]) -> None:
    rows = [
        (f"{threads} threads, oneDNN {'on' if onednn else 'off'}", metric, f"{ratio:.2f}", model)
        for (threads, onednn), ratios in noise.items()
        for metric, (ratio, model) in ratios.items()
    ]
    heads = ("TensorFlow float32", "metric", "noise floors", "model")
    print_table("another TensorFlow, in noise floors of the pack", heads, rows)


def _print_opencv(session: Session, opencv: dict[str, Ratios]) -> None:
    rows = []
    for kind, ratios in opencv.items():
        for metric, (ratio, model) in ratios.items():
            now = getattr(session.limits.tolerances.rules[metric], kind)
            shown = "Winograd" if kind == WINOGRAD else "plain"
            rows.append((metric, shown, f"{ratio:.2f}", model, f"{now:g}", str(_multiple(ratio))))
    heads = ("metric", "kind", "floors", "model", "multiple now", f"{SAFETY} x")
    print_table(f"OpenCV {session.capability['version']}", heads, rows)


def _multiple(ratio: float) -> int:
    return max(math.ceil(SAFETY * ratio), SAFETY)


def _provenance(
    session: Session,
    packs: Sequence[Pack],
    noise: dict[tuple[int, bool], Ratios],
    opencv: dict[str, Ratios],
) -> dict[str, Any]:
    versions = producer_versions(session.choices.keras) or {}
    provenance: dict[str, Any] = {
        "measured": f"TensorFlow {versions.get('tensorflow')}, OpenCV "
        f"{session.capability['version']}, {cpu_name()}",
        "models": [pack.model for pack in packs],
        "safety": SAFETY,
    }
    for (threads, onednn), ratios in noise.items():
        name = f"tensorflow_{threads}_threads_onednn_{'on' if onednn else 'off'}"
        provenance[name] = {metric: round(ratio, 2) for metric, (ratio, _) in ratios.items()}
    places = {config.place: None for config in session.variants() if not config.is_usual}
    for kind, ratios in opencv.items():
        name = "_".join([kind.replace("multiple", "opencv"), *places])
        provenance[name] = {m: f"{ratio:.2f} ({model})" for m, (ratio, model) in ratios.items()}
    return provenance


def _update(path: Path, provenance: dict[str, Any], opencv: dict[str, Ratios]) -> None:
    """Write provenance and multiples into the file, leaving all else, comments too, as it is."""
    tomlkit = imported("tomlkit", "--update needs tomlkit ({error})", "dev")
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
        document.setdefault("provenance", {}).update(provenance)
        for kind, ratios in opencv.items():
            for metric, (ratio, _) in ratios.items():
                table: Any = document["metrics"][metric]  # type: ignore[index]
                table[kind] = max(table[kind], _multiple(ratio))
        write_text(path, tomlkit.dumps(document))
    except (OSError, tomlkit.exceptions.TOMLKitError) as error:
        raise ConformanceError(f"--update {path}: {error}") from error
