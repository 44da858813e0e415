"""Votes of several raters on several images, counted by hand."""

from __future__ import annotations

import math

import numpy
import pytest

from attnshift.metrics.crossed import Vote, estimate_share, nominal_alpha, spread_of
from attnshift.metrics.statistics import score_ends, student_quantile, wilson


def votes(*rows: str) -> list[Vote]:
    """One text a rater, one character an image: y, n or . for no vote."""
    return [
        Vote(f"rater {row}", f"image {place}", float(each == "y"))
        for row, text in enumerate(rows)
        for place, each in enumerate(text)
        if each != "."
    ]


def test_a_share_and_a_difference_are_those_of_the_votes() -> None:
    share = estimate_share(votes("yyn", "y.n"))
    assert (share.value, share.count) == (0.6, 3)
    gap = estimate_share(votes("yyn", "y.n"), votes("nnn", ".yn"))
    assert gap.value == pytest.approx(0.6 - 0.2)
    assert gap.low < gap.value < gap.high


def test_an_interval_is_that_of_as_many_independent_votes() -> None:
    """Ten votes that agree within each rater, or on each image, are worth as many as there are raters or images."""
    by_rater = estimate_share(votes(*["y" * 10] * 5, *["n" * 10] * 5))
    by_image = estimate_share(votes(*["yyyyynnnnn"] * 10))
    low, high = score_ends(0.5, 9, student_quantile(0.975, 9))
    for each in (by_rater, by_image):
        assert (each.low, each.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert by_rater.high - by_rater.low > 2 * (wilson(50, 100).high - wilson(50, 100).low)


def test_an_interval_stays_within_what_can_be() -> None:
    """Two raters who differ say nothing about others."""
    gap = estimate_share(votes("yyyn", "yyyy"), votes("nnnn", "ynnn"))
    assert (gap.value, gap.low, gap.high) == (0.75, -1.0, 1.0)


def test_where_all_votes_are_equal_each_image_counts_once() -> None:
    same = estimate_share(votes("yyyy", "yyyy"))
    assert same == wilson(4, 4)
    gap = estimate_share(votes("yyyy", "yyyy"), votes("yyyy", "yyyy"))
    assert (gap.value, gap.low, gap.high) == (0.0, pytest.approx(same.low - 1), pytest.approx(1 - same.low))


def test_without_votes_there_is_no_figure() -> None:
    for each in (estimate_share([]), estimate_share(votes("y"), [])):
        assert each.count == 0
        assert math.isnan(each.value)
    assert spread_of([]) is None
    assert spread_of(votes("yn")) is None, "one rater"
    assert spread_of(votes("yy", "yy")) is None, "no vote differs"


def test_the_parts_of_the_spread_by_hand() -> None:
    """Votes yy and nn: each influence is 1/8, each rater's sum 1/4, each image's 0."""
    spread = spread_of(votes("yy", "nn"))
    assert spread is not None
    rest = 4 / 64
    assert spread.rest == rest
    assert spread.of_raters == pytest.approx(2 * 2 / 16 - rest)
    assert spread.of_images == 0.0
    turned = spread_of(votes("yn", "yn"))
    assert turned is not None
    assert (turned.of_raters, turned.of_images) == (0.0, spread.of_raters)


def test_power_is_that_of_the_spread() -> None:
    """Raters who differ and images that do not: four times the raters find about half the difference."""
    rows = ["y" * 20] * 6 + ["n" * 20] * 6
    spread = spread_of(votes(*rows))
    assert spread is not None
    assert spread.of_images == 0.0
    assert spread.freedom == pytest.approx(11, rel=0.02)
    quantiles = student_quantile(0.975, spread.freedom) + student_quantile(0.8, spread.freedom)
    assert spread.detectable == pytest.approx(quantiles * spread.error)
    assert spread.raters_for(spread.detectable) == 12, "as many as there are"
    more = spread.raters_for(spread.detectable / 2)
    assert more is not None
    assert 38 <= more <= 46, "fewer than 48: their error is better known as well"
    assert spread.with_raters(more).detectable <= spread.detectable / 2 < spread.with_raters(more - 1).detectable


def test_where_images_differ_too_much_more_raters_do_not_help() -> None:
    spread = spread_of(votes(*["yyyyynnnnn"] * 10))
    assert spread is not None
    assert (spread.of_raters, spread.images) == (0.0, 10)
    assert spread.raters_for(spread.error) is None
    assert spread.images_for(spread.error) == math.floor(10 * 2.801585**2 * spread.of_images / spread.error**2) + 1


def test_the_spread_is_that_of_studies_drawn_anew() -> None:
    """The parts are the variances of the raters' and the images' means, and of a single vote."""
    generator = numpy.random.default_rng(0)
    found, shares = [], []
    for _ in range(200):
        chance = 0.5 + generator.uniform(-0.3, 0.3, (8, 1)) + generator.uniform(-0.2, 0.2, (1, 12))
        drawn = generator.random((8, 12)) < chance
        spread = spread_of([Vote(str(row), str(at), float(drawn[row, at])) for row in range(8) for at in range(12)])
        assert spread is not None
        found.append(spread.of_raters + spread.of_images + spread.rest)
        shares.append(drawn.mean())
    assert numpy.mean(found) == pytest.approx(numpy.var(shares), rel=0.25)


def test_the_published_example_of_alpha() -> None:
    """Krippendorff 2011, section C: four observers, twelve units, missing answers."""
    observers = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[each[unit] for each in observers if each[unit] != "."] for unit in range(12)]
    assert nominal_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert math.isnan(nominal_alpha([["a", "a"]]))
    assert math.isnan(nominal_alpha([["a"], ["b"]]))
