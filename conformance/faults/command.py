"""faults: inject faults: which does the suite catch, and where? (needs TensorFlow)"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Optional

from conformance.candidate import RunConfig
from conformance.cli import BAD, OK
from conformance.cli.options import ENGINE, add_option, add_options, chosen_models, count
from conformance.cli.printing import print_table
from conformance.errors import ConformanceError, os_errors
from conformance.generated.outcomes import MODEL, SILENT
from conformance.models import MODELS
from conformance.pack.builder import require_tensorflow
from conformance.pack.formats import IMPORTERS
from conformance.pack.request import keras_flavour
from conformance.processes.pool import process_pool
from conformance.results.lines import line_text, parsed
from conformance.session import Session, choices_of

from .outcome import Outcome

# Faults of each kind, by model: fewer where OpenCV and float64 take seconds for one.
A_KIND = dict.fromkeys(MODELS, 1)
A_KIND |= dict.fromkeys(("mobilenet", "mobilenetv2", "nasnetmobile", "densenet121"), 16)
QUICK = ("mobilenet", "densenet121")
# What the suite promises, in shares of the faults that change something.
CAUGHT, LOCALISED = 0.995, 0.95
# In generated models, of whose few values the noise is taken to be larger than it looks.
CAUGHT_GENERATED = 0.95

HEADS = ("faults", "injected", "equivalent", "top-1", "OpenCV's limits", "ours", "localised")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `faults` takes."""
    add = parser.add_argument
    add_options(add, "models", "--packs")
    add_option(add, "--importer", help=f"OpenCV's importer: {', '.join(IMPORTERS)}")
    add_option(add, "--engine", **ENGINE)
    add_option(
        add,
        "--generated",
        help="inject into the first N generated models instead: one of each kind that fits",
    )
    add("--quick", action="store_true", help="one of each kind on two models")
    add_option(add, "--a-kind", type=count, metavar="N", help="faults of each kind and model")
    add_option(add, "--workers", type=count, default=1, metavar="N", help="models at once")
    add("--output", type=Path, metavar="FILE.jsonl", help="append each outcome")
    add("--read", type=Path, nargs="+", metavar="FILE.jsonl", help="inject nothing; print these")
    add("--format", choices=("table", "md"), default="table")


def main(arguments: argparse.Namespace) -> int:
    """Inject faults and print the tables; return BAD where the suite keeps not what it promises."""
    if arguments.read:
        return report([o for path in arguments.read for o in read(path)], arguments.format)
    require_tensorflow(keras_flavour(), "faults")
    if arguments.generated:
        return _run_generated(arguments)
    models = list(QUICK) if arguments.quick else chosen_models(arguments.models)
    if arguments.quick and arguments.models:
        raise ConformanceError("faults: give either --quick, which has its models, or MODEL…")
    if arguments.output:
        _require_writable(arguments.output)
    outcomes: list[Outcome] = []
    for found in _all_outcomes(models, arguments):
        outcomes += found
        print(_progress(found), file=sys.stderr, flush=True)
    return report(outcomes, arguments.format)


def _run_generated(arguments: argparse.Namespace) -> int:
    """Inject faults into generated models; BAD for a false alarm or fewer caught than promised."""
    from .generated import generated_outcomes  # needs TensorFlow to make graphs

    if arguments.quick or arguments.models:
        raise ConformanceError("faults: give either --generated N, or --quick or MODEL…")
    session = Session(choices_of(vars(arguments), engines=[arguments.engine]))
    found = generated_outcomes(session, _only_variant(session), arguments.generated)
    outcomes = [replace(outcome, model=MODEL) for outcome in found]
    faults = [outcome for outcome in outcomes if outcome.kind]
    unchanged = len(outcomes) - len(faults)
    names = sorted({fault.kind for fault in faults})
    rows = [_row(name, [f for f in faults if f.kind == name]) for name in names]
    title = f"faults of {unchanged} generated models that are right as they are"
    print_table(title, HEADS[:-1], [row[:-1] for row in [*rows, _row("all", faults)]], "table")
    # An equal graph may be refused where it lacks the pattern that the importer looks for.
    false = [fault for fault in faults if fault.equivalent and fault.how in SILENT]
    for fault in false:
        print(f"FALSE ALARM: {fault.kind}, at {fault.node} ({fault.how})")
    real = [fault for fault in faults if not fault.equivalent]
    return OK if _share(real, "ours") >= CAUGHT_GENERATED and not false else BAD


def report(outcomes: Sequence[Outcome], format: str) -> int:
    """Print what `outcomes` say, missed faults one by one; return OK or BAD."""
    faults = [outcome for outcome in outcomes if outcome.kind]
    unchanged = [outcome for outcome in outcomes if not outcome.kind]
    real = [fault for fault in faults if not fault.equivalent]
    for title, key in (("by kind", "kind"), ("by model", "model")):
        names = list(dict.fromkeys(getattr(fault, key) for fault in faults))
        rows = [_row(name, [f for f in faults if getattr(f, key) == name]) for name in names]
        print_table(f"faults {title}", HEADS, [*rows, _row("all", faults)], format)
    alarms = [sum(getattr(o, method) for o in unchanged) for method in ("top1", "opencv", "ours")]
    counts = ", ".join(
        f"{name} {n}" for name, n in zip(("top-1", "OpenCV's limits", "ours"), alarms)
    )
    print(f"alarms on {len(unchanged)} unchanged models and calls: {counts}")
    for fault in real:
        if not fault.localised:
            what = "not localised" if fault.ours else "MISSED"
            print(
                f"{what}: {fault.model}, {fault.kind}, at {fault.node}; "
                f"named {fault.located or 'nothing'} ({fault.how})"
            )
    for fault in faults:
        if fault.equivalent and fault.ours:
            print(f"FALSE ALARM: {fault.model}, {fault.kind}, at {fault.node} ({fault.how})")
    false = sum(fault.equivalent and fault.ours for fault in faults)
    kept = _share(real, "ours") >= CAUGHT and _share(real, "localised") >= LOCALISED
    return OK if kept and not alarms[2] and not false else BAD


def _share(faults: Sequence[Outcome], what: str) -> float:
    return sum(getattr(fault, what) for fault in faults) / len(faults) if faults else 1.0


def _row(name: str, faults: Sequence[Outcome]) -> tuple[str, ...]:
    real = [fault for fault in faults if not fault.equivalent]
    shares = [f"{_share(real, what):.1%}" if real else "-" for what in _METHODS]
    return (name, str(len(faults)), str(len(faults) - len(real)), *shares)


_METHODS = ("top1", "opencv", "ours", "localised")


def _all_outcomes(models: Sequence[str], arguments: argparse.Namespace) -> Iterator[list[Outcome]]:
    """Yield each model's outcomes, every model in a process of its own."""
    session = Session(choices_of(vars(arguments), engines=[arguments.engine]))
    config = _only_variant(session)
    session.build_missing(models, lambda event: print(event, file=sys.stderr, flush=True))
    for model in models:
        # What can't be had is told before an hour of faults.
        session.check_conversion(session.pack(model), config.importer)
    threads = 1 if arguments.workers > 1 else None
    config = replace(config, threads=threads)
    jobs = [
        (session, model, config, _a_kind(model, arguments), arguments.output) for model in models
    ]
    with process_pool(arguments.workers, f"faults of {', '.join(models)}") as pool:
        for future in [pool.submit(_model, *job) for job in jobs]:
            yield future.result()


def _only_variant(session: Session) -> RunConfig:
    if len(session.variants()) > 1:
        raise ConformanceError("faults are injected for one importer and engine: give one of each")
    return session.variants()[0]


def _a_kind(model: str, arguments: argparse.Namespace) -> int:
    if arguments.a_kind is not None:
        return int(arguments.a_kind)
    return 1 if arguments.quick else A_KIND.get(model, 1)


def _model(
    session: Session, model: str, config: RunConfig, a_kind: int, output: Optional[Path]
) -> list[Outcome]:
    from .run import model_outcomes  # needs TensorFlow to change graphs

    found = []
    for outcome in model_outcomes(session, session.pack(model), config, a_kind):
        found.append(outcome)
        if output:
            _append(output, outcome)
    return found


def _progress(found: Sequence[Outcome]) -> str:
    faults = [o for o in found if o.kind and not o.equivalent]
    caught = sum(o.ours for o in faults)
    return f"{found[0].model}: {caught} of {len(faults)} faults caught"


def read(path: Path) -> Iterator[Outcome]:
    """Yield the outcomes of an earlier run; raise ConformanceError for another kind of file."""
    for where, _, line in parsed(path):
        try:
            yield Outcome(**line)
        except TypeError as error:
            raise ConformanceError(
                f"--read {path}: no outcomes of faults ({where}: {error})"
            ) from error


def _require_writable(path: Path) -> None:
    """Raise ConformanceError where outcomes can't be appended: better now than after an hour."""
    with os_errors(f"--output {path}: can't be written"):
        path.open("a", encoding="utf-8").close()


def _append(path: Path, outcome: Outcome) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line_text(asdict(outcome)))
