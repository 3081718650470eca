"""The suite's side of pack building: what is missing, and the child process that builds it.

TensorFlow runs in the child only, so that the tests' process stays light and outlives it.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Callable, Optional

from conformance.errors import ConformanceError, install
from conformance.processes.child import Child, child_environment, last_lines
from conformance.processes.progress import Event, decode

from .conversion import locate_conversion
from .formats import FORMATS
from .request import PackRequest, producer_versions, runtime_versions
from .store import locate_pack

# Gives the command line that builds some packs under a folder.
Command = Callable[[list[PackRequest], Path], list[str]]

# The oldest and the newest Python that TensorFlow has wheels for, as in pyproject.toml.
PYTHONS = ((3, 10), (3, 13))


def missing_packs(
    requests: Iterable[PackRequest], root: Path, importers: Sequence[str] = ()
) -> list[PackRequest]:
    """Return the requests that no pack under `root` answers. Reads no pack's arrays.

    importers: those for which a pack must hold a converted file.

    A damaged pack is not missing: whoever opens it gets the error, and nothing is repaired
    behind the user's back. `pack build` does repair it.
    """
    return [request for request in requests if not _located(root, request, importers)]


def _located(root: Path, request: PackRequest, importers: Sequence[str]) -> bool:
    try:
        pack = locate_pack(root, request)
        if request.importer in FORMATS:
            return pack is not None  # such a file is converted to nothing
        return pack is not None and all(locate_conversion(pack, name) for name in importers)
    except ConformanceError:
        return True


def require_builder(request: PackRequest) -> None:
    """Raise ConformanceError saying what to install where the pack of `request` can't be built."""
    if request.importer not in FORMATS:
        require_tensorflow(request.keras)
    else:
        title = FORMATS[request.importer].title
        instead = ", or give --packs a folder of packs built elsewhere"
        require_runtime(
            request.importer, f"building a pack of the {title} file {request.model}", instead
        )


def require_runtime(importer: str, task: str, instead: str = "") -> None:
    """Raise ConformanceError saying what to install where files of `importer` can't be run."""
    if runtime_versions(importer) is None:
        entry = FORMATS[importer]
        raise ConformanceError(
            f"{task} needs what is not installed here "
            f"({', '.join(' or '.join(group[:2]) for group in entry.runtime)}): "
            f"{install(entry.runtime_extra)}{instead}"
        )


def require_tensorflow(flavour: str, task: str = "") -> None:
    """Raise ConformanceError saying what to install; task: what needs it, "" for building packs."""
    if producer_versions(flavour) is None:
        what = "TensorFlow and tf_keras are" if flavour == "legacy" else "TensorFlow is"
        instead = "" if task else ", or give --packs a folder of packs built elsewhere"
        raise ConformanceError(
            f"{task or 'building a pack'} needs TensorFlow, and {what} not installed: "
            f"{_remedy(sys.version_info[:2])}{instead}"
        )


def _remedy(python: tuple[int, int]) -> str:
    if PYTHONS[0] <= python <= PYTHONS[1]:
        return install("tensorflow")
    oldest, newest, this = (".".join(map(str, version)) for version in (*PYTHONS, python))
    return f"there are wheels for Python {oldest} to {newest}, and this is Python {this}"


def run_builder(
    requests: Sequence[PackRequest],
    root: Path,
    force: bool = False,
    verbose: bool = False,
    command: Optional[Command] = None,
    importers: Sequence[str] = (),
) -> Iterator[Event]:
    """Build packs in child processes, yielding their events as they come.

    Every request ends in exactly one final event (`Event.final`), "failed" with the message for
    the user included: a builder that dies takes down the model it was at, and a new one goes on
    with the rest. `verbose` lets the child's own output through to standard error. Closing the
    generator stops the child. `command` starts another builder than `build_command`'s. importers:
    those whose converted file is made, too. Raises ConformanceError where what builds them is not
    installed.
    """
    if command is None:
        command = functools.partial(
            build_command, force=force, verbose=verbose, importers=importers
        )
    for options, group in groupby(sorted(requests, key=_options), key=_options):
        pending = {request.model: request for request in group}
        require_builder(next(iter(pending.values())))
        legacy = options[2] == "legacy"
        yield from run_children(pending, lambda asked: command(asked, root), legacy, verbose)


def _options(request: PackRequest) -> tuple[str, str, str, str]:
    own = json.dumps(request.own.as_dict()) if request.own else ""
    return request.weights, request.graph, request.keras, own


def run_children(
    pending: dict[str, Any], command: Callable[[list[Any]], list[str]], legacy: bool, verbose: bool
) -> Iterator[Event]:
    """Build what is pending, by name, in one child after the other, as run_builder says.

    command: returns the command line that builds some of it. legacy: with tf_keras.
    """
    environment = child_environment(TF_USE_LEGACY_KERAS=str(int(legacy)))
    while pending:
        last: Optional[Event] = None
        asked = list(pending.values())
        with closing(Child(command(asked), environment, piped=True, shown=verbose)) as child:
            for event in _events(child):
                last = event
                if event.final:
                    pending.pop(event.model, None)
                yield event
            if last is not None and last.model in pending:
                del pending[last.model]
                yield _death(child, last.model, last.step, last.seconds)
            elif len(pending) == len(asked):
                # It died before it began anything: a second try would fare no better.
                yield from (_death(child, model, "starting", 0.0) for model in pending)
                return


def _events(child: Child) -> Iterator[Event]:
    assert child.process.stdout is not None
    for line in child.process.stdout:
        try:
            yield decode(line)
        except ValueError:
            child.log.write(line.encode())


def _death(child: Child, model: str, step: str, seconds: float) -> Event:
    ending = child.ending()
    text = f"the builder {ending.how} at step {step!r}.{last_lines(ending.log)}"
    return Event(model, text, seconds, "failed")


def build_command(
    requests: list[PackRequest],
    root: Path,
    force: bool = False,
    verbose: bool = False,
    importers: Sequence[str] = (),
) -> list[str]:
    """Return the command line that builds `requests`, which share all but the model."""
    weights, graph, _, own = _options(requests[0])
    command = [sys.executable, "-m", "conformance", "pack", "build"]
    command += ["--own", own] if own else [request.model for request in requests]
    command += ["--packs", str(root), "--graph", graph]
    command += [] if own else ["--weights", weights]
    command += ["--importer", ",".join(importers)] if importers else []
    command += ["--progress", "json"]
    return command + ["--force"] * force + ["--verbose"] * verbose
