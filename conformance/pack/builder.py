"""The suite's side of pack building: what is missing, and the child processes that build it.

TensorFlow runs in the children only, so that the tests' process stays light and outlives them.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Callable, Optional

from conformance.errors import ConformanceError, install

from .conversion import locate_conversion
from .costs import building_bytes, building_seconds
from .formats import FORMATS
from .pool import Job
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


def jobs_of(
    requests: Sequence[PackRequest],
    root: Path,
    force: bool = False,
    verbose: bool = False,
    command: Optional[Command] = None,
    importers: Sequence[str] = (),
) -> list[Job]:
    """Return the jobs, for a Pool, of building packs in processes of their own.

    `verbose` lets the processes' output through to standard error. `command` starts another builder
    than `build_command`'s. importers: those whose converted file is made, too. Raises
    ConformanceError where what builds them is not installed.
    """
    if command is None:
        command = functools.partial(
            build_command, force=force, verbose=verbose, importers=importers
        )
    jobs = []
    for _, group in groupby(sorted(requests, key=_options), key=_options):
        asked = list(group)
        require_builder(asked[0])
        words = tuple(command(asked, root))
        jobs += [
            Job(
                request.model,
                words,
                request.keras == "legacy",
                building_seconds(request.model),
                building_bytes(request.model),
            )
            for request in asked
        ]
    return jobs


def _options(request: PackRequest) -> tuple[str, str, str, str]:
    own = json.dumps(request.own.as_dict()) if request.own else ""
    return request.weights, request.graph, request.keras, own


def build_command(
    requests: list[PackRequest],
    root: Path,
    force: bool = False,
    verbose: bool = False,
    importers: Sequence[str] = (),
) -> list[str]:
    """Return the command line of a builder of `requests`, which share all but the model."""
    weights, graph, _, own = _options(requests[0])
    command = [sys.executable, "-m", "conformance", "pack", "build"]
    command += ["--own", own] if own else [request.model for request in requests]
    command += ["--packs", str(root), "--graph", graph]
    command += [] if own else ["--weights", weights]
    command += ["--importer", ",".join(importers)] if importers else []
    command += ["--as-told"]
    return command + ["--force"] * force + ["--verbose"] * verbose
