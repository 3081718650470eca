"""The outcomes of a case, in order; what several come to together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

# From good to bad. "xfailed" is a failure that was expected.
RANK = ("not run", "passed", "skipped", "xfailed", "errored", "failed")
BAD = ("failed", "errored")


def worst(outcomes: Iterable[str], none: str = "not run") -> str:
    """Return the worst of the outcomes, `none` where there are none."""
    return max(outcomes, key=RANK.index, default=none)


def counted(outcomes: Iterable[str]) -> dict[str, int]:
    """Return how often each outcome is there, worst first."""
    return worst_first(Counter(outcomes))


def worst_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that are not 0, worst first."""
    return {outcome: counts[outcome] for outcome in reversed(RANK) if counts.get(outcome)}
