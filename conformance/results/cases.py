"""The results of a run of the suite: a line a case, a line a candidate run, and more.

A line of kind "layers" holds what each node of a model's graph strayed, where that was recorded;
one of kind "generated" what came of a generated model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from conformance.candidate import RunConfig
from conformance.errors import ConformanceError

from .lines import CASES, Line, Writer, read_lines, writing_lines


@dataclass(frozen=True)
class Results:
    """A complete results file; of each kind the lines, in file order."""

    path: Path
    header: Line
    cases: list[Line]
    runs: list[Line]
    layers: list[Line]
    generated: list[Line]
    counts: dict[str, int]

    @property
    def name(self) -> str:
        """OpenCV version, and what variant_of returns, as the file is named."""
        header = self.header
        return f"{header['opencv']['version']}-{variant_of(header)}"


def variant_of(header: Line) -> str:
    """Return importer, engine, target and CPU level, as RunConfig.variant does."""
    return config_of(header).variant


def config_of(header: Line) -> RunConfig:
    """Return how OpenCV was run, as far as a header says it."""
    axes = {axis: header[axis] for axis in ("importer", "engine", "target")}
    # Sorted, as versions name the same features in other orders.
    off = tuple(sorted(header.get("cpu_disabled", ())))
    return RunConfig(**axes, cpu=header.get("cpu_level", ""), cpu_off=off)


@contextmanager
def writing(path: Path, header: Line) -> Iterator[Writer]:
    """Give a writer whose file has the header, and gets its footer when the block ends well.

    A block left by an exception leaves a file without footer, which nothing accepts as evidence.
    Raises ConformanceError when another run is writing the same file, or it can't be written.
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    lines = writing_lines(path, CASES, header)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.acquire(timeout=0))
            writer = stack.enter_context(lines)
        except filelock.Timeout:
            raise ConformanceError(
                f"{path}: another run is writing this results file; wait for it or give --results "
                f"another folder"
            ) from None
        except OSError as error:
            raise ConformanceError(f"{path}: can't be written ({error.strerror})") from error
        yield writer


def read_results(path: Path) -> Results:
    """Return the results in `path`, every line checked; see read_lines."""
    lines = read_lines(path, CASES)
    cases, runs, layers, generated = (
        [line for line in lines if line["kind"] == kind]
        for kind in ("case", "run", "layers", "generated")
    )
    return Results(path, lines[0], cases, runs, layers, generated, lines[-1]["counts"])


def results_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, each folder's own for a folder; raise ConformanceError for an empty one."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise ConformanceError(f"{path}: no results file (*.jsonl) in this folder")
        files += found
    return files
