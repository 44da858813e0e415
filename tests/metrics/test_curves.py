"""Curves read by hand: between two points, never beyond them, and paired by image."""

from __future__ import annotations

import math

import numpy
import pytest

from attnshift.metrics.curves import Curve, interpolate, read_curves
from attnshift.metrics.statistics import percentiles, resample


def column(*values: float) -> numpy.ndarray:
    return numpy.array(values)[:, None]


def curve(similarities: list[float], successes: list[float], images: int = 5) -> Curve:
    """Every image the same, so that means and intervals are known."""
    return Curve(column(*similarities).repeat(images, 1), column(*successes).repeat(images, 1))


@pytest.mark.parametrize(
    ("at", "expected"), [(0.8, 0.9), (0.85, 0.75), (0.9, 0.6), (0.925, 0.5), (0.98, 0.2), (0.79, None), (0.99, None)]
)
def test_a_line_between_neighbours_and_nothing_beyond(at: float, expected: float | None) -> None:
    """Points (0.8, 0.9), (0.9, 0.6), (0.98, 0.2) less a bend, given in no order."""
    similarity, success = column(0.9, 0.98, 0.8, 0.95), column(0.6, 0.2, 0.9, 0.4)
    (value,) = interpolate(similarity, success, at)
    assert value == pytest.approx(expected) if expected is not None else math.isnan(value)


def test_points_of_equal_similarity_count_as_one() -> None:
    similarity, success = column(0.8, 0.9, 0.9, 1.0), column(1.0, 0.2, 0.4, 0.0)
    assert interpolate(similarity, success, 0.9) == pytest.approx([0.3])
    assert interpolate(similarity, success, 0.85) == pytest.approx([0.65])
    assert interpolate(similarity, success, 0.95) == pytest.approx([0.15])


def test_a_curve_need_not_fall() -> None:
    """Its nearest points count, whatever lies further out."""
    assert interpolate(column(0.7, 0.8, 0.9), column(0.1, 0.9, 0.5), 0.85) == pytest.approx([0.7])


def test_every_resample_has_its_own_neighbours() -> None:
    similarity = numpy.array([[0.8, 0.92, 0.8], [1.0, 1.0, 0.88]])
    success = numpy.array([[0.6, 0.6, 0.6], [0.2, 0.2, 0.2]])
    values = interpolate(similarity, success, 0.9)
    assert values[0] == pytest.approx(0.4)
    assert numpy.isnan(values).tolist() == [False, True, True]


def test_equal_images_leave_no_doubt() -> None:
    (reading,) = read_curves([curve([0.85, 0.95], [0.75, 0.25])], 0.9)
    assert reading.success is not None
    assert (reading.success.value, reading.success.low, reading.success.high) == pytest.approx((0.5, 0.5, 0.5))
    assert reading.success.count == 5
    assert reading.reason == ""


@pytest.mark.parametrize(("at", "reason"), [(0.8, "stays above"), (0.99, "stays below")])
def test_what_is_not_reached_says_on_which_side(at: float, reason: str) -> None:
    reached, other = read_curves([curve([0.7, 1.0], [0.9, 0.1]), curve([0.85, 0.95], [0.7, 0.3])], at)
    assert (other.success, other.gap, other.reason) == (None, None, reason)
    assert reached.success is not None
    assert reached.reason == ""


def test_without_the_first_curve_there_is_no_difference() -> None:
    first, other = read_curves([curve([0.95, 0.97], [0.7, 0.3]), curve([0.7, 1.0], [0.9, 0.1])], 0.9)
    assert (first.success, first.gap, other.gap) == (None, None, None)
    assert other.success is not None


def noisy(seed: int, images: int = 40) -> Curve:
    draw = numpy.random.default_rng(seed)
    similarity = draw.normal([[0.85], [0.92], [0.97]], 0.03, (3, images))
    return Curve(similarity, draw.binomial(1, [[0.8], [0.5], [0.1]], (3, images)).astype(float))


def test_equal_runs_differ_by_exactly_nothing() -> None:
    for reading in read_curves([noisy(0), noisy(0)], 0.9):
        assert reading.gap is not None
        assert (reading.gap.value, reading.gap.low, reading.gap.high) == (0.0, 0.0, 0.0)


def test_the_difference_is_paired() -> None:
    """The same images, each a tenth less successful: no interval of its own comes from the images."""
    one = noisy(0)
    first, other = read_curves([one, Curve(one.naturalness, one.success - 0.1)], 0.9)
    assert first.success is not None
    assert other.gap is not None
    assert first.success.high - first.success.low > 0.1
    assert (other.gap.value, other.gap.low, other.gap.high) == pytest.approx((-0.1, -0.1, -0.1))


def test_the_interval_is_that_of_a_naive_bootstrap() -> None:
    one = noisy(3)
    (reading,) = read_curves([one], 0.9)
    values = []
    for picks in resample(40, ("curves",)):
        points = sorted(zip(one.naturalness[:, picks].mean(1), one.success[:, picks].mean(1), strict=True))
        values.append(numpy.interp(0.9, *zip(*points, strict=True)))
    assert reading.success is not None
    assert (reading.success.low, reading.success.high) == pytest.approx(percentiles(numpy.array(values)))
    assert read_curves([one], 0.9) == [reading], "twice the same"


def test_an_image_that_does_not_count_still_has_its_similarity() -> None:
    similarity = numpy.array([[0.8, 0.9, 1.0], [0.9, 1.0, 1.0]])
    success = numpy.array([[1.0, math.nan, 0.5], [0.25, math.nan, 0.25]])
    (reading,) = read_curves([Curve(similarity, success)], 0.9)
    assert reading.success is not None
    assert (reading.success.value, reading.success.count) == (0.75, 2)


def test_where_no_image_counts() -> None:
    nothing = curve([0.8, 1.0], [math.nan, math.nan])
    for reading in read_curves([nothing, nothing], 0.9):
        assert (reading.success, reading.gap, reading.reason) == (None, None, "no image counts")


def test_a_value_that_resamples_miss_has_no_interval() -> None:
    """Its highest mean SSIM lies just above 0.95: about half of the resamples end below."""
    draw = numpy.random.default_rng(0)
    similarity = numpy.stack([draw.normal(0.85, 0.01, 30), draw.normal(0.0, 0.03, 30)])
    similarity[1] += 0.9501 - similarity[1].mean()
    (reading,) = read_curves([Curve(similarity, numpy.array([[0.9] * 30, [0.1] * 30]))], 0.95)
    assert reading.success is not None
    assert reading.success.value == pytest.approx(0.1, abs=0.01)
    assert math.isnan(reading.success.low)
    assert math.isnan(reading.success.high)
