"""One judgement: what was observed, what was allowed, and where it is worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

# The best classes of one image, best first: (class, value).
Top = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Judgement:
    """One metric's verdict, at the input that comes nearest to its limit or goes farthest past."""

    metric: str
    passed: bool
    observed: float  # in the metric's own unit; inf where a value is not finite
    allowed: float  # in the same unit
    reason: str = ""  # why it failed, or why a limit is as it is
    notes: str = ""  # worth telling although it passed
    input: Optional[str] = None  # the name of the worst input
    position: Optional[int] = None  # the class that differs most there
    values: Optional[tuple[float, float]] = None  # the candidate's and the truth's at the position
    noise: Optional[float] = None  # the noise floor that `allowed` is a multiple of
    multiple: Optional[float] = None
    required: Optional[float] = None  # the multiple that would have passed
    who: str = "OpenCV"  # whose values were judged
    candidate_top: Top = ()
    truth_top: Top = ()
    output: str = ""  # which one of the model's, where it has several

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON allows them: numbers that are not finite become strings."""
        return {key: json_number(value) for key, value in asdict(self).items()}


def worst_of(judgements: Sequence[Judgement]) -> Judgement:
    """Return the one to tell of several: the first that failed, else the nearest to its limit."""
    failed = [judgement for judgement in judgements if not judgement.passed]
    return failed[0] if failed else max(judgements, key=_share)


def _share(judgement: Judgement) -> float:
    return judgement.observed / judgement.allowed if judgement.allowed else 0.0


def json_number(value: Any) -> Any:
    """Return `value` as JSON can hold it: numbers that are not finite, however deep, as strings."""
    if isinstance(value, dict):
        return {name: json_number(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_number(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
