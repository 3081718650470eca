"""Routes: by which importer, engine and graph OpenCV is right on a model, and which is the best.

A route conforms when every check of single images passes. Of those that do, the best is the one
nearest to float64, then the fastest; distances count to two digits, as they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from conformance.generated.outcomes import RIGHT, SINGLE
from conformance.pack.formats import FORMATS, IMPORTERS
from conformance.pack.request import GRAPHS

from .cases import Results, config_of
from .gate import DEVIATION
from .lines import Line, number

# The states of a route, the best first.
CONFORMS = "conforms"
# A batch fails, or the file takes one image.
SINGLY = "conforms, one image at a time"
# A check of single images does not pass, be that expected or not.
STRAYS = "does not conform"
NOT_JUDGED = "not judged"
# Not about single images, or not about the route: blobs are made before any importer reads a file.
_APART = ("batch", "preprocessing")


@dataclass(frozen=True)
class Route:
    """A way from a model to OpenCV's answers."""

    importer: str
    engine: str
    graph: str = GRAPHS[0]

    @property
    def title(self) -> str:
        """The route for people: "ONNX, new engine", "TensorFlow raw, classic engine"."""
        return f"{self.file}, {self.engine} engine"

    @property
    def file(self) -> str:
        """What OpenCV reads: "TensorFlow", "TFLite" or "ONNX", with the graph if it is unusual."""
        title = FORMATS[self.importer].title if self.importer in FORMATS else "TensorFlow"
        return title if self.graph == GRAPHS[0] else f"{title} {self.graph}"

    @property
    def order(self) -> tuple[int, str, str]:
        """What sorts routes: by importer, then engine, then graph."""
        return IMPORTERS.index(self.importer), self.engine, self.graph


@dataclass(frozen=True)
class Judged:
    """What came of one model by one route."""

    route: Route
    state: str = NOT_JUDGED  # or one of the others above
    deviation: Optional[float] = None  # median L1 to float64 over the softmax
    noise: Optional[float] = None  # TensorFlow's float32, by the same measure
    ms: Optional[float] = None  # median of the forwards made while judging
    bad: tuple[str, ...] = ()  # ids of the checks that did not pass, those of single images first
    reason: str = ""  # of the first of these

    @property
    def conforms(self) -> bool:
        """Whether every check of single images passes."""
        return self.state in (CONFORMS, SINGLY)


def judged(route: Route, cases: Sequence[Line], runs: Sequence[Line] = ()) -> Judged:
    """Return what the lines of a results file about one model say of the route they were made by.

    Lines of switched runs, as with --winograd off, are left out: nobody gets them without asking.
    """
    plain = [case for case in cases if not case.get("variant")]
    single = [case for case in plain if case["stage"] not in _APART]
    batch = [case for case in plain if case["stage"] == "batch"]
    bad = [case for case in (*single, *batch) if case["outcome"] not in ("passed", "skipped")]
    found = Judged(
        route,
        _state(single, batch),
        bad=tuple(case["id"] for case in bad),
        reason=bad[0].get("reason", "") if bad else "",
    )
    run = next((run for run in runs if not run["variant"]), None)
    if run is None:
        return found
    deviation, noise = (number(run[part].get(DEVIATION)) for part in ("deviation", "noise"))
    return replace(found, deviation=deviation, noise=noise, ms=run["median_ms"])


def _state(single: Iterable[Line], batch: Iterable[Line]) -> str:
    alone, together = ({case["outcome"] for case in cases} for cases in (single, batch))
    if alone <= {"skipped"}:
        return NOT_JUDGED
    if not alone <= {"passed", "skipped"}:
        return STRAYS
    return CONFORMS if together == {"passed"} else SINGLY


def ranked(routes: Iterable[Judged]) -> list[Judged]:
    """Return the routes that conform, the best first: nearest to float64, then fastest."""
    return sorted((one for one in routes if one.conforms), key=_rank)


def _rank(one: Judged) -> tuple[object, ...]:
    deviation = math.inf if one.deviation is None else float(f"{one.deviation:.1e}")
    return deviation, math.inf if one.ms is None else one.ms, one.route.order


def right_models(files: Iterable[Results]) -> dict[str, dict[Route, set[str]]]:
    """Return by OpenCV version and route the keys of the generated models that are right.

    On single images; a route on which none is right has an empty set. Files of another target or
    CPU level than the usual ones are left out.
    """
    found: dict[str, dict[Route, set[str]]] = {}
    for one in files:
        head = one.header
        if not config_of(head).is_usual:
            continue
        route = Route(head["importer"], head["engine"], head["graph"])
        found.setdefault(head["opencv"]["version"], {})[route] = {
            line["key"]
            for line in one.generated
            if line["run"] == SINGLE and line["symptom"] == RIGHT
        }
    return found
