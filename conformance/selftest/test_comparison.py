"""What may be said of wheels' costs: intervals, alarms, and the layers that are to blame."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import numpy as np
import pytest

from conformance.bench.comparison import (
    ERROR,
    Comparison,
    Finding,
    alarm,
    as_json,
    confidence_of,
    estimate,
    findings,
    least_rounds,
    verdict,
)
from conformance.bench.layers import layer_types, layers, slowed
from conformance.bench.tables import changes, summary
from conformance.opencv.timing import Warm
from conformance.results.quantities import QUANTITIES

from .sample_timings import LIMITS, comparison, timing

# Rounds of a wheel of 10 ms, and of one of 14.
OLD = [10.0, 11, 10, 10, 12, 10, 10, 10, 10]
NEW = [14.0, 15, 14, 14, 16, 14, 13, 14, 14]


def found(
    one: Comparison, key: str = "warm_ms", threads: Optional[int] = 2, place: int = 0
) -> Finding:
    """Return the finding of a quantity."""
    (finding,) = (
        finding
        for finding in findings(one)
        if (finding.quantity.key, finding.threads, finding.place) == (key, threads, place)
    )
    return finding


@pytest.mark.parametrize(
    ("count", "critical"), [(6, 0), (8, 3), (9, 5), (12, 13), (16, 29), (20, 52)]
)
def test_interval_is_the_signed_rank_tests(count: int, critical: int) -> None:
    """It leaves out as many means of pairs as tables of that test's critical values say (5 %)."""
    values = [2.0**value for value in range(count)]
    means = sorted((a + b) / 2 for n, a in enumerate(values) for b in values[n:])
    given = estimate(values)
    assert (given.low, given.high) == (means[critical], means[-1 - critical])


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of samples with long tails the interval holds the true middle in 95 % of 2000 cases."""
    samples = np.random.default_rng(1).standard_t(2, (2000, 9))
    given = [estimate(list(sample)) for sample in samples]
    held = [e.low is not None and e.high is not None and e.low <= 0 <= e.high for e in given]
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize(("threads", "least"), [((1,), 7), ((1, 2), 16), ((1, 2, 4), 27)])
def test_least_rounds_suffice(threads: tuple[int, ...], least: int) -> None:
    """With so many rounds a table's intervals have ends, with one fewer a number they have none."""
    assert least_rounds(threads) == least
    each = [1.1] * (least // len(threads))
    assert estimate(each, confidence_of(threads)).low == 1.1
    assert estimate(each[1:], confidence_of(threads)).low is None


def test_a_table_seldom_has_a_false_word() -> None:
    """Of 200 tables of wheels that are alike, at most one in twenty says that something rose."""
    dice = np.random.default_rng(7)
    confidence = confidence_of((1, 2))
    more = 0
    for _ in range(200):
        columns = dice.lognormal(0, 0.1, (len(QUANTITIES) * 2, 9))
        lows = [estimate(list(column), confidence).low for column in columns]
        more += any(low is not None and low > 1 for low in lows)
    assert more <= ERROR * 200


def test_slower_wheel_raises_the_alarm() -> None:
    """An interval above the limit is an alarm, one that reaches below it is none."""
    slower = found(comparison(OLD, NEW))
    assert alarm(slower, LIMITS)
    assert verdict(slower, LIMITS) == "above 1.1"
    assert slower.ratio.value == pytest.approx(1.4, abs=0.02)
    above = {**LIMITS, "warm_ms": 1.45}
    assert not alarm(slower, above)
    assert verdict(slower, above) == "slower"


def test_each_quantity_has_its_own_limit() -> None:
    """Memory that grew by half is an alarm by its own limit, whatever that of the times."""
    rounds = [(timing(10.0), timing(10.0, memory=150.0)) for _ in range(9)]
    grown = Comparison("mobilenet", "k:d", 9, (2,), [*rounds])
    told = {finding.quantity.key: verdict(finding, LIMITS) for finding in findings(grown)}
    assert told.pop("memory_mib") == "above 1.2"
    assert set(told.values()) == {"no difference"}
    assert summary(grown, LIMITS) == "memory above 1.2"
    assert not alarm(found(grown, "memory_mib"), {**LIMITS, "memory_mib": 1.6, "load_ms": 0.5})


def test_what_the_system_does_not_tell_is_left_out() -> None:
    """Where a system does not tell memory there is no finding of it, and no alarm."""
    rounds = [(timing(10.0, memory=None), timing(10.0, memory=None)) for _ in range(9)]
    silent = Comparison("mobilenet", "k:d", 9, (2,), [*rounds])
    assert [f.quantity.key for f in findings(silent)] == [q.key for q in QUANTITIES[:-1]]


def test_what_happens_once_is_told_by_the_threads_it_began_with() -> None:
    """Warm times count on each number of threads, first inference and memory on the first only."""
    order = [(1, 2), (2, 1)] * 8
    rounds = [(timing(10.0, threads), timing(10.0, threads)) for threads in order]
    one = Comparison("mobilenet", "k:d", 16, (1, 2), [*rounds])
    for threads in (1, 2):
        for key, count in (("warm_ms", 16), ("p90_ms", 16), ("first_ms", 8), ("memory_mib", 8)):
            assert found(one, key, threads).rounds == count


def test_one_spoilt_round_changes_nothing() -> None:
    """A single round in which the machine was busy with something else makes no difference."""
    spoilt = found(comparison([10.0] * 9, [10.0] * 8 + [90.0]))
    assert verdict(spoilt, LIMITS) == "no difference"


def test_a_page_of_memory_is_no_difference() -> None:
    """A ratio that is surely above 1, but by less than matters, is no difference."""
    rounds = [(timing(10.0, memory=100.0), timing(10.0, memory=100.1)) for _ in range(9)]
    page = found(Comparison("mobilenet", "k:d", 9, (2,), [*rounds]), "memory_mib")
    assert page.ratio.low == pytest.approx(1.001)
    assert verdict(page, LIMITS) == "no difference"


def test_few_rounds_tell_nothing() -> None:
    """With fewer rounds than it takes there is no interval and no alarm, however it looks."""
    few = found(comparison([10.0] * 6, [90.0] * 6))
    assert (few.ratio.low, alarm(few, LIMITS)) == (None, False)
    assert "too few rounds" in verdict(few, LIMITS)


def test_interrupted_comparison_is_labelled() -> None:
    """A comparison whose rounds were not all run says so, in words and in JSON."""
    partial = comparison([10.0] * 7, [20.0] * 7, planned=9)
    assert summary(partial, LIMITS).startswith("interrupted, in 7 of 9 rounds: ")
    assert "warm inference above 1.1" in summary(partial, LIMITS)
    assert as_json(partial, LIMITS)["complete"] is False
    assert summary(Comparison("mobilenet", "k:d", 9, (2,)), LIMITS) == "interrupted"


def test_changes_of_a_row_name_both_versions() -> None:
    """In a row of wheels each change beyond its limit names versions, quantity, figures, ratio."""
    memory = (100.0, 180.0, 180.0, 90.0)
    rounds = [tuple(timing(10.0, memory=mib) for mib in memory) for _ in range(9)]
    row = Comparison("mobilenet", "k:d", 9, (2,), rounds)
    assert list(changes(row, ["4.6.0", "4.7.0", "4.8.0", "4.9.0"], LIMITS)) == [
        "memory rose from 100.00 MiB (4.6.0) to 180.00 MiB (4.7.0), 2 threads: "
        "1.800 times as much (1.800 to 1.800)",
        "memory fell from 180.00 MiB (4.8.0) to 90.00 MiB (4.9.0), 2 threads: "
        "0.500 times as much (0.500 to 0.500)",
    ]
    assert [f.place for f in findings(row) if alarm(f, LIMITS)] == [0]


def test_layers_to_blame_are_named() -> None:
    """The slowed layer comes first with its share; one that did not change is not named."""
    before = [timing(9, conv1=4.0 + i / 100, conv2=5.0, relu=0.5) for i in range(9)]
    after = [timing(12, conv1=7.0 + i / 90, conv2=5.0, relu=0.0) for i in range(9)]
    one = Comparison("mobilenet", "k:d", 9, (2,), [*zip(before, after)])
    assert [part.name for part in slowed(layers(one, 2))] == ["conv1"]
    assert [part.name for part in slowed(layer_types(one, 2))] == ["Convolution"]
    worst = layers(one, 2)[0]
    assert worst.difference.value == pytest.approx(3.0, abs=0.02)
    assert worst.share == pytest.approx(3.0 / 2.5, abs=0.02)  # the ReLU gave 0.5 ms back


def test_layer_that_varies_is_not_blamed() -> None:
    """A layer that was slower in five rounds and faster in four is not named."""
    after = [5.6] * 5 + [4.4] * 4
    rounds = [(timing(9, conv1=5.0), timing(9, conv1=ms)) for ms in after]
    assert slowed(layers(Comparison("mobilenet", "k:d", 9, (2,), [*rounds]), 2)) == []


def test_layer_of_one_side_counts_as_no_time() -> None:
    """A layer that only one wheel has, as fusion leaves some out, counts with 0 ms on the other."""
    rounds = [(timing(9, conv1=9.0), timing(12, conv1=9.0, relu=3.0)) for _ in range(9)]
    blamed = slowed(layers(Comparison("mobilenet", "k:d", 9, (2,), [*rounds]), 2))
    assert [(p.name, p.first, p.difference.value) for p in blamed] == [("relu", 0.0, 3.0)]


def test_figures_shown_belong_together() -> None:
    """On a machine whose speed halves meanwhile the times shown are those of one round."""
    first = [10.0, 10, 10, 10, 20, 20, 20, 20, 20]
    second = [14.1, 14.2, 14.3, 14.4, 28.6, 27.0, 27.2, 27.4, 27.6]
    a, b = found(comparison(first, second)).sides
    assert b / a == pytest.approx(1.41, abs=0.01)


def test_error_is_no_difference() -> None:
    """A comparison that OpenCV ended is an error, in words and in JSON."""
    failed = replace(comparison(OLD, NEW), error="no such layer")
    assert summary(failed, LIMITS) == "error"
    assert as_json(failed, LIMITS)["error"] == "no such layer"


def test_small_change_shows_with_all_numbers_of_threads_together() -> None:
    """3 % that is noise with 1 thread, and with 2, is slower in both together."""
    noise = [0.09, -0.08, 0.07, -0.09, 0.08, -0.07, 0.06, -0.06] * 2
    rounds = []
    for strayed in noise:
        old = timing(10.0, (1, 2))
        warm = [Warm(1, [10.3 * (1 + strayed)], {}), Warm(2, [10.3 * (1 - strayed)], {})]
        rounds.append((old, replace(old, warm=warm)))
    one = Comparison("mobilenet", "k:d", 16, (1, 2), [*rounds])
    together = found(one, threads=None)
    assert verdict(together, LIMITS) == "slower"
    assert together.ratio.value == pytest.approx(1.03, abs=0.005)
    alone = [verdict(found(one, threads=threads), LIMITS) for threads in (1, 2)]
    assert alone == ["no difference"] * 2
