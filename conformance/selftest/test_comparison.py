"""What may be said of two wheels' times: intervals, alarms, and the layers that are to blame."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.bench.comparison import (
    Comparison,
    alarm,
    as_json,
    estimate,
    layer_types,
    layers,
    ratio,
    slowed,
    typical_round,
    verdict,
)
from conformance.opencv.timing import Timing


def timing(median: float, **layers: float) -> Timing:
    """Return a process whose inferences took about `median` ms."""
    times = [median * 0.98, median, median * 1.5]
    types = {name: "Convolution" if "conv" in name else "ReLU" for name in layers}
    return Timing("4.0.0", "classic", 2, times, layers, types, 100.0)


def comparison(first: list[float], second: list[float], planned: int = 0) -> Comparison:
    """Return a comparison of these medians of processes."""
    rounds = [(timing(a), timing(b)) for a, b in zip(first, second)]
    return Comparison("mobilenet", "k:d", planned or len(rounds), rounds)


@pytest.mark.parametrize(("count", "outside"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_interval_is_the_sign_tests(count: int, outside: int) -> None:
    """The interval leaves out as many values at each end as tables of the sign test say."""
    found = estimate([float(value) for value in range(count)])
    assert (found.low, found.high) == (outside, count - 1 - outside)


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    """On skewed samples the interval holds the true median in at least 95 % of 2000 cases."""
    samples = np.random.default_rng(1).lognormal(0.0, 0.5, (2000, 9))
    found = [estimate(list(sample)) for sample in samples]
    held = [e.low is not None and e.high is not None and e.low <= 1 <= e.high for e in found]
    assert np.mean(held) >= 0.95


def test_slower_wheel_raises_the_alarm() -> None:
    """An interval above the limit is an alarm, one that reaches below it is none."""
    slower = comparison([10, 11, 10, 10, 12, 10, 10, 10, 10], [14, 15, 14, 14, 16, 14, 13, 14, 14])
    assert alarm(slower, 1.10)
    assert ratio(slower).value == pytest.approx(1.4, abs=0.02)
    assert not alarm(slower, 1.45)


def test_one_spoilt_round_changes_nothing() -> None:
    """A single round in which the machine was busy with something else makes no difference."""
    spoilt = comparison([10.0] * 9, [10.0] * 8 + [90.0])
    assert not alarm(spoilt, 1.10)
    assert verdict(spoilt, 1.10) == "no difference"


def test_few_rounds_tell_nothing() -> None:
    """Below six rounds there is no interval and no alarm, however large the difference."""
    few = comparison([10.0] * 5, [90.0] * 5)
    assert (ratio(few).low, alarm(few, 1.10)) == (None, False)
    assert "too few rounds" in verdict(few, 1.10)


def test_interrupted_comparison_is_labelled() -> None:
    """A comparison whose rounds were not all run says so, in words and in JSON."""
    partial = comparison([10.0] * 7, [20.0] * 7, planned=9)
    assert verdict(partial, 1.10).startswith("interrupted, in 7 of 9 rounds: above 1.1")
    assert as_json(partial)["complete"] is False
    assert verdict(Comparison("mobilenet", "k:d", 9), 1.10) == "interrupted"


def test_layers_to_blame_are_named() -> None:
    """The slowed layer comes first with its share; one that did not change is not named."""
    before = [timing(9, conv1=4.0 + i / 100, conv2=5.0, relu=0.5) for i in range(9)]
    after = [timing(12, conv1=7.0 + i / 90, conv2=5.0, relu=0.0) for i in range(9)]
    found = Comparison("mobilenet", "k:d", 9, list(zip(before, after)))
    assert [part.name for part in slowed(layers(found))] == ["conv1"]
    assert [part.name for part in slowed(layer_types(found))] == ["Convolution"]
    worst = layers(found)[0]
    assert worst.difference.value == pytest.approx(3.0, abs=0.02)
    assert worst.share == pytest.approx(3.0 / 2.5, abs=0.02)  # the ReLU gave 0.5 ms back


def test_layer_that_varies_is_not_blamed() -> None:
    """A layer that was slower in five rounds and faster in four is not named."""
    after = [5.6] * 5 + [4.4] * 4
    rounds = [(timing(9, conv1=5.0), timing(9, conv1=ms)) for ms in after]
    assert slowed(layers(Comparison("mobilenet", "k:d", 9, rounds))) == []


def test_layer_of_one_side_counts_as_no_time() -> None:
    """A layer that only one wheel has, as fusion leaves some out, counts with 0 ms on the other."""
    rounds = [(timing(9, conv1=9.0), timing(12, conv1=9.0, relu=3.0)) for _ in range(9)]
    found = slowed(layers(Comparison("mobilenet", "k:d", 9, rounds)))
    assert [(p.name, p.first, p.difference.value) for p in found] == [("relu", 0.0, 3.0)]


def test_times_shown_belong_together() -> None:
    """On a machine whose speed halves meanwhile the times shown are those of one round."""
    first = [10.0, 10, 10, 10, 20, 20, 20, 20, 20]
    second = [14.1, 14.2, 14.3, 14.4, 28.6, 27.0, 27.2, 27.4, 27.6]
    a, b = typical_round(comparison(first, second))
    assert b.median_ms / a.median_ms == pytest.approx(1.41, abs=0.01)
