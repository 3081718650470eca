"""pack build: build reference packs (needs TensorFlow)"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Callable

from conformance.cli import OK
from conformance.cli.options import OWN, Arguments, add_option, add_options, chosen
from conformance.errors import ConformanceError
from conformance.generated.drawing import coverage_text
from conformance.generated.outcomes import MODEL
from conformance.generated.store import COUNT, Request, find_generated
from conformance.own_models import Chosen, by_name, own_from
from conformance.pack.builder import jobs_of, require_builder, require_tensorflow
from conformance.pack.conversion import require_converter
from conformance.pack.format import Pack
from conformance.pack.formats import FORMATS, IMPORTERS
from conformance.pack.pool import Pool
from conformance.pack.request import PackRequest, keras_flavour, weights_identity
from conformance.pack.schedule import Turn
from conformance.processes.machine import give_back_memory
from conformance.processes.progress import STYLES, Event, reporter
from conformance.session import Session, choices_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `pack build` takes."""
    add = parser.add_argument
    add_options(add, "models", "--packs", "--weights", "--graph", *OWN)
    to_make = f"also make the files of these importers: {','.join(FORMATS)} (default: none)"
    add_option(add, "--importer", help=to_make)
    add_option(add, "--generated", nargs="?", const=COUNT, help="small generated models instead")
    add_option(add, "--generated-seed")
    add("--force", action="store_true", help="build even what is there")
    add("--progress", choices=STYLES, default="auto", help="default: %(default)s")
    add("-v", "--verbose", action="store_true", help="let TensorFlow log")
    # How a session hands a model of the user's to the process that builds its pack, and how that
    # one is a builder of a pool: it builds each model when it reads its name.
    add("--own", help=argparse.SUPPRESS)
    add("--as-told", action="store_true", help=argparse.SUPPRESS)


def main(arguments: Arguments) -> int:
    """Build packs; raise ConformanceError naming the models that were not built."""
    if arguments.generated is not None:
        return _build_generated(arguments)
    flavour = keras_flavour()
    requests = _build_requests(arguments)
    for request in requests:
        weights_identity(request)  # a missing file is better reported before an hour of building
    for request in requests:
        require_builder(request)
    importers = [name for name in arguments.importers or () if name in FORMATS]
    for name in importers if any(request.importer not in FORMATS for request in requests) else ():
        require_converter(name, flavour)
    if arguments.as_told:
        _build_as_told(requests, arguments, importers)
        return OK
    failed = []
    with reporter(arguments.progress, len(requests)) as report:
        jobs = jobs_of(
            requests, arguments.packs, arguments.force, arguments.verbose, importers=importers
        )
        for event in Pool(jobs, arguments.verbose).events():
            report(event)
            if event.state == "failed":
                failed.append(event.model)
    if failed:
        raise ConformanceError(f"not built: {', '.join(failed)} (see above)")
    return OK


def _build_as_told(requests: list[PackRequest], arguments: Arguments, importers: list[str]) -> None:
    """Be a builder of a pool (see pack/pool.py) until there are no more names to read."""
    if arguments.verbose:
        os.environ["CONFORMANCE_VERBOSE"] = "1"
    convert = _convert if importers else None
    # A twentieth of the time, while hardly anything of a model is garbage before its end.
    gc.disable()
    with reporter("json", len(requests)) as report:
        turns = {
            request.model: Turn(
                request, arguments.packs, _build, report, arguments.force, importers, convert
            )
            for request in requests
        }
        for line in sys.stdin:
            turns[line.strip()].attempt()
            give_back_memory()


def _build(request: PackRequest, root: Path, progress: Callable[[str], None]) -> Pack:
    if request.importer in FORMATS:
        from conformance.runtimes.build import build_file_pack

        return build_file_pack(request, root, progress)
    # TensorFlow takes seconds to import, and a pack that is there needs none.
    from conformance.reference.build import build_pack  # this is the building process

    return build_pack(request, root, progress)


def _convert(pack: Pack, importer: str, progress: Callable[[str], None]) -> object:
    from conformance.reference.formats import build_conversion  # this is the building process

    return build_conversion(pack, importer, progress)


def _build_generated(arguments: Arguments) -> int:
    if arguments.models:
        raise ConformanceError("pack build: give either models or --generated")
    if arguments.graph == "raw":
        raise ConformanceError("pack build --generated: --graph opencv or rewritten, not raw")
    importers = tuple(arguments.importers or IMPORTERS[:1])
    request = Request(arguments.generated, arguments.generated_seed, importers, arguments.graph)
    require_tensorflow("keras3")
    for name in set(request.importers).intersection(FORMATS):
        require_converter(name, "keras3")
    if arguments.as_told:
        sys.stdin.readline()
    started = time.monotonic()
    with reporter("json" if arguments.as_told else arguments.progress, 1) as report:

        def say(step: str, state: str = "working") -> None:
            report(Event(MODEL, step, time.monotonic() - started, state))

        if not arguments.force and find_generated(arguments.packs, request):
            say("already there", "found")
            return OK
        from conformance.reference.generated_pack import build_generated_pack

        pack = build_generated_pack(request, arguments.packs, say)
        left = request.count - len(pack.models)
        say(f"built, {coverage_text(list(pack.recipes.values()))}; {left} left out", "built")
    return OK


def _build_requests(arguments: Arguments) -> list[PackRequest]:
    if arguments.own:
        models = Chosen((), by_name([own_from(json.loads(arguments.own))]))
    else:
        models = chosen(vars(arguments), arguments.models)
    session = Session(choices_of(vars(arguments), models))
    names = list(models.own) if arguments.own else session.models
    return [session.request(name) for name in names]
