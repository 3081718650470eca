"""Results files side by side: which columns the report has, and what each cell says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Optional

from conformance.models import model_order
from conformance.pack.formats import IMPORTERS
from conformance.processes.machine import on_threads
from conformance.results.cases import Results, config_of
from conformance.results.lines import Line
from conformance.results.outcomes import counted, worst
from conformance.tables import release

# What tells a verdict without colour, and what people call it.
SYMBOLS = {
    "failed": "✗",
    "errored": "!",
    "xfailed": "x",
    "skipped": "s",
    "passed": "✓",
    "not run": "-",
}
NAMES = {**{outcome: outcome for outcome in SYMBOLS}, "xfailed": "expected failure"}

# What must be equal for two files to be held against each other, besides the machine.
SETUP = ("importer", "backend", "graph", "weights", "keras")


@dataclass(frozen=True)
class Cell:
    """What one results file says of one model. run: the candidate's runs, one a variant."""

    cases: list[Line] = field(default_factory=list)
    runs: list[Line] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The worst outcome of the cases; "not run" where there are none."""
        return worst(case["outcome"] for case in self.cases)

    @property
    def counts(self) -> dict[str, int]:
        """The cases by outcome, worst first."""
        return counted(case["outcome"] for case in self.cases)


@dataclass(frozen=True)
class Column:
    """One OpenCV version as it was run. results: None where it was expected but not run.

    engine: with target and CPU level, as RunConfig.place says it. python: set only where the group
    has this version and engine from several Pythons.
    """

    version: str
    engine: str
    results: Optional[Results] = None
    cells: dict[str, Cell] = field(default_factory=dict)
    python: str = ""

    @property
    def label(self) -> str:
        """Version, engine and, where it tells columns apart, Python."""
        return " ".join(filter(None, (self.version, self.engine, self.python)))

    def cell(self, model: str) -> Cell:
        """Return the cell of `model`, an empty one where the file does not mention it."""
        return self.cells.get(model, Cell())


@dataclass(frozen=True)
class Group:
    """Columns that may be compared: same machine and same question, in order of the release."""

    name: str
    machine: str
    setup: dict[str, str]
    columns: list[Column]

    @property
    def results(self) -> list[Results]:
        """The files behind the columns."""
        return [column.results for column in self.columns if column.results]


@dataclass(frozen=True)
class Matrix:
    """All of the report's columns. models: in the registry's order. notes: files left out, why."""

    models: list[str]
    groups: list[Group]
    notes: list[str]

    @property
    def columns(self) -> list[tuple[Group, Column]]:
        """Every column with its group; the position in this list is the column's number."""
        return [(group, column) for group in self.groups for column in group.columns]


def build_matrix(files: Iterable[Results], expected: Sequence[str] = ()) -> Matrix:
    """Return the matrix of `files`; `expected` versions without results get an empty column."""
    kept, notes = _newest(files)
    by_group: dict[tuple[str, ...], list[Results]] = defaultdict(list)
    for results in kept:
        by_group[_group_key(results.header)].append(results)
    keys = sorted(by_group, key=_group_order)
    names = group_names(keys)
    groups = [_group(names[key], by_group[key], expected) for key in keys]
    found = {case["model"] for results in kept for case in results.cases}
    return Matrix(sorted(found, key=model_order), groups, notes)


def machine(header: Line) -> str:
    """Return the machine a results file was written on: processor, CPU features and threads.

    The features are sorted: builds of OpenCV name the same CPU's in different orders. Files from
    before the processor was recorded have them only. Python and NumPy are no part of it, as old
    OpenCV needs an old Python on the same machine.
    """
    environment = header["environment"]
    features = " ".join(sorted(feature.strip("*") for feature in environment["cpu"].split()))
    text = ", ".join(filter(None, (environment.get("processor", ""), features)))
    return on_threads(text, environment["threads"])


def python_minor(header: Line) -> str:
    """Return the Python of a results file, such as "Python 3.11"."""
    return "Python " + ".".join(header["environment"]["python"].split(".")[:2])


def _newest(files: Iterable[Results]) -> tuple[list[Results], list[str]]:
    kept: dict[tuple[str, ...], Results] = {}
    notes = []
    for results in sorted(files, key=lambda r: (r.header["created"], str(r.path))):
        header = results.header
        key = (*_group_key(header), results.name, python_minor(header))
        older = kept.get(key)
        if older is not None:
            notes.append(
                f"{older.path.name} ({older.header['created']}) left out: {results.path.name} of "
                f"{header['created']} is newer, of the same OpenCV {results.name} and machine"
            )
        kept[key] = results
    return list(kept.values()), notes


def _group_key(header: Line) -> tuple[str, ...]:
    return (machine(header), *(header[axis] for axis in SETUP))


def _group_order(key: tuple[str, ...]) -> tuple[object, ...]:
    machine, importer, *rest = key
    return (machine, IMPORTERS.index(importer), *rest)


def group_names(
    keys: Sequence[tuple[str, ...]], axes: Sequence[str] = SETUP
) -> dict[tuple[str, ...], str]:
    """Name each group by what tells it from the others; a single one needs no name.

    keys: of each the machine, then its value of each of the axes.
    """
    machines = list(dict.fromkeys(key[0] for key in keys))
    names = {}
    for key in keys:
        words = [f"machine {machines.index(key[0]) + 1}"] if len(machines) > 1 else []
        words += [
            f"{axis} {value}"
            for place, (axis, value) in enumerate(zip(axes, key[1:]), 1)
            if len({other[place] for other in keys}) > 1
        ]
        names[key] = ", ".join(words)
    return names


def _group(name: str, members: Sequence[Results], expected: Sequence[str]) -> Group:
    header = members[0].header
    several = Counter(results.name for results in members)
    columns = [_column(results, several[results.name] > 1) for results in members]
    have = {release(column.version) for column in columns}
    columns += [Column(version, "") for version in expected if release(version) not in have]
    columns.sort(key=lambda column: (release(column.version), column.engine, column.python))
    return Group(name, machine(header), {axis: header[axis] for axis in SETUP}, columns)


def _column(results: Results, several: bool) -> Column:
    cells: dict[str, Cell] = defaultdict(Cell)
    for case in results.cases:
        cells[case["model"]].cases.append(case)
    for run in results.runs:
        cells[run["model"]].runs.append(run)
    header = results.header
    python = python_minor(header) if several else ""
    place = config_of(header).place
    return Column(header["opencv"]["version"], place, results, dict(cells), python)
