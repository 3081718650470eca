"""The suite's side of pack building: what is missing, and the child process that builds it.

TensorFlow runs in the child only, so that the tests' process stays light and outlives it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Callable, Optional

from conformance.errors import ConformanceError
from conformance.processes.progress import Event, decode

from .conversion import locate_conversion
from .request import PackRequest, producer_versions
from .store import locate_pack

# Gives the command line that builds some packs under a folder.
Command = Callable[[list[PackRequest], Path], list[str]]

# The oldest and the newest Python that TensorFlow has wheels for, as in pyproject.toml.
PYTHONS = ((3, 10), (3, 13))
_LOG_TAIL = 2000


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
        return pack is not None and all(locate_conversion(pack, name) for name in importers)
    except ConformanceError:
        return True


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
        return "python -m pip install 'opencv-dnn-conformance[tensorflow]'"
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
    those whose converted file is made, too. Raises ConformanceError where TensorFlow is not
    installed.
    """
    if command is None:
        command = functools.partial(
            build_command, force=force, verbose=verbose, importers=importers
        )
    for options, group in groupby(sorted(requests, key=_options), key=_options):
        require_tensorflow(options[2])
        yield from _run_group(list(group), root, command, verbose)


def _options(request: PackRequest) -> tuple[str, str, str, str]:
    own = json.dumps(request.own.as_dict()) if request.own else ""
    return request.weights, request.graph, request.keras, own


def _run_group(
    requests: list[PackRequest], root: Path, command: Command, verbose: bool
) -> Iterator[Event]:
    pending = {request.model: request for request in requests}
    while pending:
        left = len(pending)
        last: Optional[Event] = None
        with _child(list(pending.values()), command, root, verbose) as child:
            for event in child.events():
                last = event
                if event.final:
                    pending.pop(event.model, None)
                yield event
            if last is not None and last.model in pending:
                del pending[last.model]
                yield child.death(last.model, last.step, last.seconds)
            elif len(pending) == left:
                # It died before it began anything: a second try would fare no better.
                yield from (child.death(model, "starting", 0.0) for model in pending)
                return


@dataclass(frozen=True)
class _Child:
    """A running builder, and the file that gets its standard error."""

    process: subprocess.Popen[str]
    log: IO[bytes]

    def events(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                yield decode(line)
            except ValueError:
                self.log.write(line.encode())
        self.process.wait()

    def death(self, model: str, step: str, seconds: float) -> Event:
        code = self.process.returncode
        how = f"exited with status {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += " (out of memory?)" if -code == signal.SIGKILL else ""
        return Event(model, f"the builder {how} at step {step!r}{self._tail()}", seconds, "failed")

    def _tail(self) -> str:
        self.log.seek(0)
        text = self.log.read().decode(errors="replace").strip()
        return f". Its last words:\n{text[-_LOG_TAIL:]}" if text else ""


@contextlib.contextmanager
def _child(
    requests: list[PackRequest], command: Command, root: Path, verbose: bool
) -> Iterator[_Child]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command(requests, root),
            stdout=subprocess.PIPE,
            stderr=None if verbose else log,
            text=True,
            encoding="utf-8",
            env=_environment(requests[0].keras),
        )
        try:
            yield _Child(process, log)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


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


def _environment(flavour: str) -> dict[str, str]:
    environment = dict(os.environ)
    environment["TF_USE_LEGACY_KERAS"] = "1" if flavour == "legacy" else "0"
    home = Path(__file__).resolve().parents[2]
    if home.name not in ("site-packages", "dist-packages"):
        # A checkout that pytest put on its own path; the child has to find it as well.
        paths = [str(home), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment
