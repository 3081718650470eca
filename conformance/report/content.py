"""All that a report is made of, and how its figures and names are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional

from conformance.models import model_order
from conformance.results.comparisons import Compared
from conformance.results.costs import Cost
from conformance.results.evaluations import Accuracies
from conformance.results.lines import Line
from conformance.results.times import Timing
from conformance.tables import release

from .generated import Generated
from .matrix import Matrix
from .operations import Table
from .routes import Table as Routes
from .routes import tables_of

Data = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """All that is reported. notes: what the reader must know about files left out."""

    matrix: Matrix
    timings: list[Timing]
    notes: list[str]
    title: str
    created: str
    accuracies: Sequence[Accuracies] = ()
    comparisons: Sequence[Compared] = ()
    costs: Sequence[Cost] = ()
    generated: Optional[Generated] = None

    @property
    def tables(self) -> list[Table]:
        """The tables of operations, one for each importer."""
        return [] if self.generated is None else self.generated.tables

    @cached_property
    def routes(self) -> list[Routes]:
        """The tables of routes; none where all has been by one."""
        return tables_of(self.matrix)

    @property
    def models(self) -> list[str]:
        """The models of verdicts, times and evaluations, in the registry's order."""
        found = {*self.matrix.models, *(timing.model for timing in self.timings)}
        found |= {compared.model for compared in self.comparisons}
        found |= {evaluated.header["model"] for evaluated in self.accuracies}
        return sorted(found, key=model_order)

    @property
    def opencvs(self) -> list[tuple[str, str]]:
        """The OpenCV versions and engines of all of these, by release."""
        found = {(column.version, column.engine) for _, column in self.matrix.columns}
        found |= {(t.version, t.engine) for t in self.timings if t.framework == "opencv"}
        found |= {(one.header["opencv"], one.header["engine"]) for one in self.accuracies}
        found |= {column for table in self.tables for column in table.columns}
        return sorted(found, key=lambda pair: (release(pair[0]), pair[1]))


def case_name(case: Line) -> str:
    """Return a case's name without file and model, such as "softmax softmax_l1_sum"."""
    name, _, parameters = case["id"].split("::")[1].rstrip("]").partition("[")
    words = [p for p in parameters.split("-") if p != case["model"]]
    return " ".join([name.replace("test_", "", 1), *words]).strip()
