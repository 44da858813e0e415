"""Votes of several raters on several images, counted by hand."""

from __future__ import annotations

import math

import numpy
import pytest

from attnshift.metrics.crossed import Vote, nominal_alpha, pigeonhole, spread_of
from attnshift.metrics.statistics import wilson


def votes(*rows: str) -> list[Vote]:
    """One text a rater, one character an image: y, n or . for no vote."""
    return [
        Vote(f"rater {row}", f"image {place}", float(each == "y"))
        for row, text in enumerate(rows)
        for place, each in enumerate(text)
        if each != "."
    ]


def test_a_share_and_a_difference_are_those_of_the_votes() -> None:
    share = pigeonhole(votes("yyn", "y.n"))
    assert (share.value, share.count) == (0.6, 3)
    gap = pigeonhole(votes("yyn", "y.n"), votes("nnn", ".yn"))
    assert gap.value == pytest.approx(0.6 - 0.2)
    assert gap.low < gap.value < gap.high


def test_the_interval_covers_raters_and_images() -> None:
    """A hundred votes that agree within each rater, or on each image, are worth ten."""
    by_rater = pigeonhole(votes(*["y" * 10] * 5, *["n" * 10] * 5))
    by_image = pigeonhole(votes(*["yyyyynnnnn"] * 10))
    alone = wilson(50, 100)
    for each in (by_rater, by_image):
        assert each.high - each.low > 2 * (alone.high - alone.low)


def test_where_all_votes_are_equal_each_image_counts_once() -> None:
    same = pigeonhole(votes("yyyy", "yyyy"))
    assert same == wilson(4, 4)
    gap = pigeonhole(votes("yyyy", "yyyy"), votes("yyyy", "yyyy"))
    assert (gap.value, gap.low, gap.high) == (0.0, pytest.approx(same.low - 1), pytest.approx(1 - same.low))


def test_without_votes_there_is_no_figure() -> None:
    for each in (pigeonhole([]), pigeonhole(votes("y"), [])):
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
    spread = spread_of(votes("yy", "nn"))
    assert spread is not None
    assert spread.detectable == pytest.approx((1.959964 + 0.841621) * 0.25**0.5, abs=1e-6)
    assert spread.raters_for(spread.detectable) == 2, "as many as there are"
    assert spread.raters_for(spread.detectable / 2) == 8, "four times as many find half of it"
    turned = spread_of(votes("yn", "yn"))
    assert turned is not None
    assert turned.raters_for(turned.detectable / 4) is None, "images differ too much"
    assert turned.images_for(turned.detectable / 4) == 25, "16 times what they spread: 16 * 2 * 3/4, and one more"


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
