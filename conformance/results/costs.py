"""What models cost on each OpenCV version, one line of versions beside the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from conformance.models import model_order
from conformance.tables import release


@dataclass(frozen=True)
class Cost:
    """What a model costs on one OpenCV."""

    model: str
    version: str
    engine: str
    group: str  # what must be equal for costs to be compared: machine, threads and batch
    line: str  # what tells its line of versions from others of the group: engine, or file
    values: dict[str, Optional[float]]  # by Quantity.key; None for what is not known


def lines_of(costs: Iterable[Cost]) -> list[list[Cost]]:
    """Return costs that may be compared, each line by version; lines of one version left out."""
    found: dict[tuple[str, str, str], list[Cost]] = defaultdict(list)
    for cost in costs:
        found[cost.model, cost.group, cost.line].append(cost)
    lines = [sorted(line, key=lambda cost: release(cost.version)) for line in found.values()]
    return sorted(
        (line for line in lines if len({cost.version for cost in line}) > 1),
        key=lambda line: (model_order(line[0].model), line[0].group, line[0].line),
    )
