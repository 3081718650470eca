"""Intervals and tests of accuracies, against figures worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.imagenet.statistics import compare, proportion


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two boolean arrays with so many images right in both, one, the other, neither."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat(
        [True, False, True, False], counts
    )


def test_wilson_interval() -> None:
    """81 of 263 has Wilson's interval 0.2553 to 0.3662, a published example (Newcombe 1998)."""
    found = proportion(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert found.value == 81 / 263


def test_mcnemar_is_exact() -> None:
    """10 against 2 discordant images give the exact two-sided p of 158 / 4096."""
    found = compare(*pair(100, 10, 2, 30))
    assert (found.only_first, found.only_second) == (10, 2)
    assert found.p_value == pytest.approx(158 / 4096)
    assert not found.agree
    assert found.difference.value == pytest.approx(8 / 142)
    assert found.difference.low < 8 / 142 < found.difference.high


def test_identical_answers_agree() -> None:
    """Without a discordant image the frameworks agree, and the interval is not empty."""
    found = compare(*pair(700, 0, 0, 300))
    assert (found.p_value, found.agree) == (1.0, True)
    assert found.difference.low < 0 < found.difference.high < 0.01


def test_small_difference_is_found_in_many_images() -> None:
    """A difference of 0.2 points shows in 50,000 images and not in 1,000."""
    assert not compare(*pair(35000, 150, 50, 14800)).agree
    assert compare(*pair(700, 3, 1, 296)).agree


def test_interval_covers() -> None:
    """The interval of the difference holds the true one in at least 95 % of seeded samples."""
    rng = np.random.RandomState(0)
    inside = 0
    for _ in range(200):
        kind = rng.choice(4, 500, p=[0.68, 0.03, 0.01, 0.28])
        found = compare((kind < 2), (kind == 0) | (kind == 2))
        inside += found.difference.low <= 0.02 <= found.difference.high
    assert inside >= 190
