"""Intervals against known values and against what intervals must do."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as draws

from attnshift.metrics.statistics import bootstrap, wilson

COUNTS = draws.integers(1, 5000).flatmap(lambda count: draws.tuples(draws.integers(0, count), draws.just(count)))


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, score method without correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_against_published_values(successes: int, count: int, low: float, high: float) -> None:
    estimate = wilson(successes, count)
    assert estimate.value == successes / count
    assert estimate.count == count
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS)
def test_wilson_lies_in_the_unit_interval_and_holds_the_estimate(case: tuple[int, int]) -> None:
    estimate = wilson(*case)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1
    assert estimate.low < estimate.high


@given(COUNTS)
def test_wilson_bounds_solve_the_score_equation(case: tuple[int, int]) -> None:
    """|share - p| = z sqrt(p (1 - p) / n) at both ends; an end at 0 or 1 may have been cut there."""
    successes, count = case
    estimate = wilson(successes, count)
    for bound in (estimate.low, estimate.high):
        if 0 < bound < 1:
            distance = abs(successes / count - bound)
            assert distance == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / count), rel=1e-3, abs=1e-7)


@given(COUNTS)
def test_wilson_treats_success_and_failure_alike(case: tuple[int, int]) -> None:
    successes, count = case
    here, there = wilson(successes, count), wilson(count - successes, count)
    assert (here.low, here.high) == pytest.approx((1 - there.high, 1 - there.low), abs=1e-9)


def test_a_higher_level_is_wider() -> None:
    narrow, wide = wilson(30, 50, level=0.8), wilson(30, 50, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_wilson_of_nothing_knows_nothing() -> None:
    estimate = wilson(0, 0)
    assert math.isnan(estimate.value)
    assert (estimate.low, estimate.high, estimate.count) == (0, 1, 0)


def test_bootstrap_is_a_function_of_values_and_names() -> None:
    values = numpy.random.default_rng(0).normal(size=30)
    assert bootstrap(values, ("a",)) == bootstrap(values, ("a",))
    assert bootstrap(values, ("a",)).low != bootstrap(values, ("b",)).low
    assert bootstrap(values, ("a",)).value == pytest.approx(values.mean())


def test_bootstrap_leaves_out_what_is_not_a_number() -> None:
    estimate = bootstrap([1.0, math.nan, 2.0, math.nan])
    assert (estimate.value, estimate.count) == (1.5, 2)
    empty = bootstrap([math.nan])
    assert empty.count == 0
    assert math.isnan(empty.value)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    estimate = bootstrap([0.25] * 7)
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0.25, 0.25)


def test_bootstrap_is_as_wide_as_the_standard_error_says() -> None:
    values = numpy.random.default_rng(0).normal(size=400)
    estimate = bootstrap(values)
    expected = 2 * 1.96 * values.std() / math.sqrt(400)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.1)


def test_bootstrap_covers_the_true_mean() -> None:
    """95 % intervals of 200 samples: by chance fewer than 175 would hold the mean about never."""
    draw = numpy.random.default_rng(0)
    samples = draw.normal(3.0, 2.0, size=(200, 40))
    estimates = [bootstrap(sample, (number,), resamples=400) for number, sample in enumerate(samples)]
    covered = sum(estimate.low <= 3.0 <= estimate.high for estimate in estimates)
    assert 175 <= covered <= 199
