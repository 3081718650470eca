"""export: your model as a file that OpenCV reads rightly, with a script that runs it"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

from conformance.bench.wheels import wheel
from conformance.cli import BAD, OK
from conformance.cli.options import OWN, add_option, add_options, chosen
from conformance.errors import ConformanceError
from conformance.generated.defects import load_defects
from conformance.own_models import Chosen
from conformance.pack.formats import FORMATS, IMPORTERS
from conformance.predict.answers import read_labels
from conformance.predict.printing import SYNTHETIC
from conformance.processes.child import HERE, Interpreter
from conformance.processes.environments import copy_package, default_root
from conformance.processes.progress import Event
from conformance.processes.scratch import Scratch
from conformance.session import Session, choices_of
from conformance.verdict.expectations import load_known_failures

from .folder import check_folder, write_folder
from .routes import PLAIN, REWRITTEN, Trial, nearest, routes, try_route


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `export` takes."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name, or the path of your own model")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    add(
        "--opencv", metavar="WHEEL", help="judge for this version, or wheel (default: what is here)"
    )
    add_options(add, "--packs", "--weights", "--threads", "--engine", *OWN)
    text = "importers to try, in this order, comma-separated (default: all that OpenCV has)"
    add_option(add, "--importer", default=list(IMPORTERS), help=text)


def main(arguments: argparse.Namespace) -> int:
    """Try one route after the other and write the first that conforms; BAD where none does."""
    check_folder(arguments.output)
    models = chosen(vars(arguments), [arguments.model])
    with ExitStack() as stack:
        tried: list[Trial] = []
        opencv: dict[str, Any] = {}
        for session, trial in _trials(arguments, models, _interpreter(arguments.opencv, stack)):
            tried.append(trial)
            opencv = session.capability
            _tell(trial)
            if trial.conforms:
                _write(arguments, trial, tried, opencv)
                return OK
    (name,) = models.names
    print(f"{name}: no route conforms on OpenCV {opencv['version']}{_nearest(tried)}")
    return BAD


def _interpreter(spec: Optional[str], stack: ExitStack) -> Interpreter:
    """Return the Python of a light environment with the OpenCV `spec`, or this one."""
    if spec is None:
        return HERE
    folder = stack.enter_context(Scratch())
    return wheel(spec, default_root(), copy_package(Path(folder))).interpreter


def _trials(
    arguments: argparse.Namespace, models: Chosen, interpreter: Interpreter
) -> Iterator[tuple[Session, Trial]]:
    """Yield what comes of each route, the graph as it is first; see routes()."""
    (name,) = models.names
    defects = load_defects()
    rewrites: Optional[Sequence[str]] = None
    for graph in (PLAIN, REWRITTEN):
        if graph == REWRITTEN and rewrites == []:
            print("  no rewrite fits the graph")
            return
        session = Session(
            choices_of(
                vars(arguments),
                models,
                graph=graph,
                interpreter=interpreter,
                known_failures=load_known_failures(own=tuple(models.own)),
            )
        )
        if graph == PLAIN:
            _refuse_converted(session, name)
            print(f"{name}, routes to OpenCV {session.capability['version']}:", flush=True)
        without: set[str] = set()  # importers for which there is no file
        for route in routes(graph, session.importers, session.engines):
            if route.importer in without:
                continue
            trial = try_route(session, name, route, defects, _progress)
            if trial.pack is None:
                without.add(route.importer)
            else:
                rewrites = trial.pack.manifest.rewrites
            yield session, trial


def _refuse_converted(session: Session, model: str) -> None:
    """Raise ConformanceError for a model that is an ONNX or TFLite file."""
    own = session.own_importer(model)
    if own in FORMATS:
        raise ConformanceError(
            f"{model} is a{'n' * (own == 'onnx')} {FORMATS[own].title} file already, and is judged "
            "as it stands: pytest --model; export takes a Keras model, a SavedModel or a frozen "
            "graph"
        )


def _progress(event: Event) -> None:
    if event.state != "failed":  # the trial tells why
        print(event, file=sys.stderr, flush=True)


def _tell(trial: Trial) -> None:
    """Print what came of a route, and why where it does not conform."""
    if trial.conforms:
        print(
            f"  {trial.route.title}: conforms, L1 {trial.strays:.2g} of {trial.allowed:.2g} allowed"
        )
        if trial.batches:
            print(f"    one image at a time: {trial.batches}")
    else:
        print(f"  {trial.route.title}: does not conform")
        for line in trial.wrong:
            print(f"    {line}")
        for reason in trial.known:
            print(f"    known: {reason}")
    sys.stdout.flush()


def _nearest(tried: Sequence[Trial]) -> str:
    found = nearest(tried)
    if found is None or found.strays is None or found.allowed is None:
        return "; none of them gives an answer"
    share = found.strays / found.allowed
    return f"; the nearest is {found.route.title}, whose L1 is {share:.3g} times what is allowed"


def _write(
    arguments: argparse.Namespace, trial: Trial, tried: Sequence[Trial], opencv: dict[str, Any]
) -> None:
    pack = trial.pack
    assert pack is not None
    labels: list[str] = []
    if len(pack.heads()) == 1 and not pack.is_map:
        classes = pack.load("outputs_f32").shape[-1]
        labels = read_labels(None, classes, pack.labels())
    folder = arguments.output.absolute()
    names = write_folder(folder, trial, tried, opencv, labels)
    print(f"{arguments.output}: {', '.join(names)}")
    if pack.manifest.own is None and arguments.weights == "synthetic":
        print(f"{SYNTHETIC}: labels and confidences mean nothing")
    print(f"try it: python {arguments.output / 'run.py'} picture.jpg")
