"""Distances and rankings on small arrays worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.verdict.metrics import (
    METRICS,
    inversions,
    l1_mean,
    l1_sum,
    linf,
    top_k,
)

_A = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], np.float32)
_B = np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])


def test_distances_are_those_worked_out_by_hand() -> None:
    """Sum, mean and maximum of |difference| are taken over the classes, input by input."""
    assert l1_sum(_A, _B).tolist() == [0.5, 0.0]
    assert l1_mean(_A, _B).tolist() == [0.5 / 3, 0.0]
    assert linf(_A, _B).tolist() == [0.25, 0.0]


def test_distances_are_taken_in_float64() -> None:
    """A difference far below float32's spacing is seen when the truth is float64."""
    truth = np.array([[1.0 + 2.0**-40]])
    assert linf(np.ones((1, 1), np.float32), truth).tolist() == [2.0**-40]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_value_that_is_not_finite_passes_a_comparison(metric: Any, bad: Any) -> None:
    """A NaN or infinity on either side makes that input's distance infinite, and no other's."""
    spoilt = _A.copy()
    spoilt[0, 1] = bad
    for pair in ((spoilt, _B), (_B, spoilt), (spoilt, spoilt)):
        assert metric.measure(*pair)[0] == np.inf
        assert metric.measure(*pair)[1] == 0.0


def test_shapes_that_differ_are_refused() -> None:
    """Arrays of different shapes are not broadcast against each other."""
    with pytest.raises(ValueError, match="shapes differ"):
        l1_sum(_A, _B[:1])


def test_of_equal_values_the_lower_index_comes_first() -> None:
    """Ties are broken towards the lower class, and NaN is never among the best."""
    values = np.array([[1.0, 3.0, 3.0, 2.0], [np.nan, 0.0, 0.0, 5.0]])
    assert top_k(values, 3).tolist() == [[1, 2, 3], [3, 1, 2]]
    assert top_k((np.arange(1000) % 3)[None], 5).tolist() == [[2, 5, 8, 11, 14]]


def test_inversions_tell_how_far_a_choice_was_from_the_best_left() -> None:
    """At each rank the inversion is the truth's best class not yet chosen minus the chosen one."""
    truth = np.array([[5.0, 4.0, 1.0, 0.0]])
    assert inversions(truth, np.array([[0, 1]])).tolist() == [[0.0, 0.0]]
    assert inversions(truth, np.array([[1, 0]])).tolist() == [[1.0, 0.0]]
    assert inversions(truth, np.array([[0, 2]])).tolist() == [[0.0, 3.0]]
