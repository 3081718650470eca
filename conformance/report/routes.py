"""Routes side by side: for each model and OpenCV version which conform, and which is the best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

from conformance.results.cases import Results, config_of
from conformance.results.routes import (
    CONFORMS,
    NOT_JUDGED,
    SINGLY,
    STRAYS,
    Judged,
    Route,
    judged,
    ranked,
    right_models,
)
from conformance.tables import release

from .matrix import SETUP, SYMBOLS, Column, Matrix, group_names

# The axes of a group of columns that make a route of it; what else differs is not compared.
_OF_ROUTE = ("importer", "graph")
# By the state of a cell's best route, the verdict whose colour it has.
VERDICTS = {CONFORMS: "passed", SINGLY: "single", STRAYS: "failed", NOT_JUDGED: "not run"}
MEANINGS = {
    CONFORMS: "the best route, and how many others conform",
    SINGLY: "the same, but for images one at a time: a batch fails, or the file takes one image",
    STRAYS: "no route conforms",
    NOT_JUDGED: "no route was judged",
}


@dataclass(frozen=True)
class Cell:
    """The routes of one model on one OpenCV version."""

    routes: list[Judged]  # those that conform first, the best of them at the head
    columns: list[int]  # of each route the number of its column in the matrix

    @cached_property
    def conforming(self) -> list[Judged]:
        """The routes that conform, the best first."""
        return ranked(self.routes)

    @property
    def best(self) -> Optional[Judged]:
        """The best of the routes that conform, or None."""
        return self.conforming[0] if self.conforming else None

    @property
    def state(self) -> str:
        """The state of the best route, or that of all where none conforms."""
        if self.best is not None:
            return self.best.state
        return STRAYS if any(one.state == STRAYS for one in self.routes) else NOT_JUDGED

    @property
    def sign(self) -> str:
        """What stands in the cell: the best route, its engine where the version has several."""
        if self.best is None:
            return SYMBOLS[VERDICTS[self.state]]
        several = len({one.route.engine for one in self.routes}) > 1
        return short(self.best.route) + (f" {self.best.route.engine}" if several else "")

    @property
    def others(self) -> int:
        """How many routes conform besides the best."""
        return max(0, len(self.conforming) - 1)

    @property
    def text(self) -> str:
        """The cell where it is text alone, such as "ONNX new +3"."""
        return f"{self.sign} +{self.others}" if self.others else self.sign

    @property
    def words(self) -> str:
        """The cell in a line."""
        if self.best is None:
            return MEANINGS[self.state]
        figures = ""
        if self.best.deviation is not None and self.best.ms is not None:
            figures = f", {self.best.deviation:.1e} from float64, {self.best.ms:.3g} ms"
        singly = ", one image at a time" if self.state == SINGLY else ""
        return (
            f"{len(self.conforming)} of {len(self.routes)} routes conform{singly}; best: "
            f"{self.best.route.title}{figures}"
        )


@dataclass(frozen=True)
class Table:
    """The routes of all models on all versions that may be compared."""

    name: str
    versions: list[str]
    rows: dict[str, list[Cell]]  # by model, a cell for each version

    @property
    def trouble(self) -> set[str]:
        """The models that no route conforms on somewhere."""
        return {
            model for model, cells in self.rows.items() if any(c.state == STRAYS for c in cells)
        }


@dataclass(frozen=True)
class Share:
    """How many generated models are right on single images, by OpenCV version."""

    judged: dict[str, int]  # the models that some route was judged on
    some: dict[str, int]  # of these, those that are right by some route
    routes: dict[Route, dict[str, int]]  # and by each route


def short(route: Route) -> str:
    """Return what OpenCV reads, as short as a cell wants it, such as "TF" or "TF raw"."""
    return route.file.replace("TensorFlow", "TF")


def tables_of(matrix: Matrix) -> list[Table]:
    """Return a table for each machine and way to ask, none where all has been by one route."""
    found: dict[tuple[str, ...], list[tuple[int, Route, Column]]] = defaultdict(list)
    for index, (group, column) in enumerate(matrix.columns):
        if column.results and not config_of(column.results.header).is_usual:
            continue  # who asks for a file asks for the target and the CPU that everybody has
        compared = (value for axis, value in group.setup.items() if axis not in _OF_ROUTE)
        route = Route(group.setup["importer"], column.engine, group.setup["graph"])
        found[(group.machine, *compared)].append((index, route, column))
    axes = tuple(axis for axis in SETUP if axis not in _OF_ROUTE)
    names = group_names(sorted(found), axes)
    routes = {route for columns in found.values() for _, route, column in columns if column.results}
    if len(routes) < 2:
        return []
    return [_table(names[key], found[key], matrix.models) for key in sorted(found)]


def _table(name: str, columns: list[tuple[int, Route, Column]], models: Iterable[str]) -> Table:
    versions = sorted({column.version for _, _, column in columns}, key=release)
    rows = {m: [Cell(*_judged(m, version, columns)) for version in versions] for m in models}
    # What is about no model, such as a blob alone, has no route.
    shown = {m: cells for m, cells in rows.items() if any(c.state != NOT_JUDGED for c in cells)}
    return Table(name, versions, shown)


def _judged(
    model: str, version: str, columns: Iterable[tuple[int, Route, Column]]
) -> tuple[list[Judged], list[int]]:
    """Return a model's routes on a version, the best first, and the numbers of their columns."""
    here = [
        (judged(route, column.cell(model).cases, column.cell(model).runs), index)
        for index, route, column in columns
        if column.version == version and model in column.cells
    ]
    best = ranked(one for one, _ in here)
    places = {one.route: place for place, one in enumerate(best)}
    here.sort(key=lambda pair: (places.get(pair[0].route, len(best)), pair[0].route.order))
    return [one for one, _ in here], [index for _, index in here]


def share_of(files: Sequence[Results]) -> Share:
    """Return how many generated models are right by some route, and by each."""
    keys: dict[str, set[str]] = defaultdict(set)
    for one in files:
        keys[one.header["opencv"]["version"]] |= {line["key"] for line in one.generated}
    right = right_models(files)
    routes = sorted({r for by_route in right.values() for r in by_route}, key=lambda r: r.order)
    return Share(
        {version: len(keys[version]) for version in right},
        {version: len(set().union(*by_route.values())) for version, by_route in right.items()},
        {r: {v: len(found[r]) for v, found in right.items() if r in found} for r in routes},
    )


def picture_rows(tables: Iterable[Table]) -> Iterator[dict[str, str]]:
    """Yield a row for each cell, as the picture of the routes wants them."""
    for table in tables:
        for model, cells in table.rows.items():
            for version, cell in zip(table.versions, cells):
                column = f"{version} {table.name}".strip()
                yield {"model": model, "column": column, "verdict": cell.state, "symbol": cell.text}
