"""Figures from votes of several raters on several images, with intervals, power and agreement.

Each rater votes on many images, and each image has votes of many raters. Votes of one rater are no
independent draws, and neither are votes on one image. Free of torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy
from numpy.typing import NDArray

from attnshift.metrics.statistics import Estimate, percentiles, wilson
from attnshift.randomness import generator

__all__ = ["Spread", "Vote", "nominal_alpha", "pigeonhole", "spread_of"]

_LEVEL, _POWER, _RESAMPLES = 0.95, 0.8, 4000
_NONE = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Vote:
    """Vote of a ``rater`` on an ``image``: ``value`` is 1 for yes and 0 for no."""

    rater: str
    image: str
    value: float


def pigeonhole(votes: Sequence[Vote], against: Sequence[Vote] | None = None, key: Sequence[int | str] = ()) -> Estimate:
    """Share of yes among ``votes``, or how much it exceeds the share among the votes ``against``,
    with a 95 % interval that covers other raters and other images.

    Raters and images are drawn with replacement, each on their own; a vote counts as often as its
    rater and its image are drawn together (the pigeonhole bootstrap: Owen, Annals of Applied
    Statistics 2007). The interval is rather too wide than too narrow. Where no draw differs, it is
    Wilson's, as if each image had one vote, and for a difference Newcombe's of two such intervals
    (Statistics in Medicine 1998, method 10). ``key`` is the random key. The count is of images.
    """
    groups = [votes] if against is None else [votes, against]
    if not all(groups):
        return _NONE
    raters, images = (sorted({getattr(vote, of) for group in groups for vote in group}) for of in ("rater", "image"))
    often = [
        generator("pigeonhole", what, *key).multinomial(len(names), [1 / len(names)] * len(names), size=_RESAMPLES)
        for what, names in (("raters", raters), ("images", images))
    ]
    drawn = _difference([_shares(_cells(group, raters, images), *often) for group in groups])
    drawn = drawn[numpy.isfinite(drawn)]
    value = _difference([numpy.float64(_share(group)) for group in groups])
    low, high = percentiles(drawn) if len(drawn) else (math.nan, math.nan)
    if not high > low:
        low, high = _without_draws(groups, float(value))
    return Estimate(float(value), low, high, len({vote.image for vote in votes}))


@dataclass(frozen=True)
class Spread:
    """Variance of a share or a difference of shares over ``raters`` and ``images``, in three parts.

    ``of_raters`` falls with the number of raters alone, ``of_images`` with that of images alone,
    ``rest`` with both (crossed random factors: Westfall, Kenny and Judd, Journal of Experimental
    Psychology: General 2014).
    """

    raters: int
    images: int
    of_raters: float
    of_images: float
    rest: float

    @property
    def detectable(self) -> float:
        """The smallest true difference that a two-sided test at 5 % finds in 80 % of studies of
        this size."""
        return _SUM_OF_QUANTILES * math.sqrt(self.of_raters + self.of_images + self.rest)

    def raters_for(self, difference: float) -> int | None:
        """Raters who find a true ``difference`` with 80 % power on as many images; None where no
        number of them does."""
        left = _variance_for(difference) - self.of_images
        return max(2, math.ceil((self.of_raters + self.rest) * self.raters / left)) if left > 0 else None

    def images_for(self, difference: float) -> int:
        """Images that any number of raters needs at least to find a true ``difference`` with 80 %
        power."""
        return math.floor(self.of_images * self.images / _variance_for(difference)) + 1


def spread_of(votes: Sequence[Vote], against: Sequence[Vote] | None = None) -> Spread | None:
    """Spread of the share of yes among ``votes``, or of its difference to the share among the votes
    ``against``; None where there are fewer than two raters or images, or all votes are equal.

    A vote's influence is its distance to the share of its group over the votes in the group. The
    squared sums of influences by rater and by image, each with n / (n - 1), less the squares that
    both hold, are the variance (Cameron, Gelbach and Miller, Journal of Business and Economic
    Statistics 2011). A part below 0 counts as 0.
    """
    groups = [votes] if against is None else [votes, against]
    if not all(groups):
        return None
    influences = [
        (vote, sign * (vote.value - _share(group)) / len(group))
        for sign, group in zip((1, -1), groups, strict=False)
        for vote in group
    ]
    rest = sum(each**2 for _, each in influences)
    of_raters, raters = _squared_sums((vote.rater, each) for vote, each in influences)
    of_images, images = _squared_sums((vote.image, each) for vote, each in influences)
    if min(raters, images) < 2 or not rest:
        return None
    return Spread(raters, images, max(0.0, of_raters - rest), max(0.0, of_images - rest), rest)


def nominal_alpha(units: Iterable[Sequence[Hashable]]) -> float:
    """Krippendorff's alpha of the answers on each unit, for answers without an order: 1 is full
    agreement, 0 is that of chance (Content Analysis, 3rd edition 2013, chapter 12).

    Units with a single answer do not count. The result is nan where none is left, or where all
    answers are equal.

    >>> nominal_alpha([["a", "a"], ["b", "b"]]), round(nominal_alpha([["a", "a"], ["a", "b"]]), 3)
    (1.0, 0.0)
    """
    counts = [Counter(unit) for unit in units if len(unit) > 1]
    total: Counter[Hashable] = sum(counts, Counter())
    answers = total.total()
    expected = answers**2 - sum(count**2 for count in total.values())
    if not expected:
        return math.nan
    observed = sum(
        (each.total() ** 2 - sum(count**2 for count in each.values())) / (each.total() - 1) for each in counts
    )
    return 1 - (answers - 1) * observed / expected


_SUM_OF_QUANTILES = NormalDist().inv_cdf((1 + _LEVEL) / 2) + NormalDist().inv_cdf(_POWER)


def _variance_for(difference: float) -> float:
    """Variance at which ``difference`` is found with 80 % power."""
    return (difference / _SUM_OF_QUANTILES) ** 2


def _share(votes: Sequence[Vote]) -> float:
    return sum(vote.value for vote in votes) / len(votes)


def _difference(values: Sequence[NDArray[numpy.float64] | numpy.float64]) -> NDArray[numpy.float64]:
    return numpy.asarray(values[0] if len(values) == 1 else values[0] - values[1])


def _cells(votes: Sequence[Vote], raters: list[str], images: list[str]) -> NDArray[numpy.float64]:
    """Sum of the votes and their number in each cell, [2,raters,images]."""
    rows, columns = ({name: place for place, name in enumerate(names)} for names in (raters, images))
    cells = numpy.zeros((2, len(raters), len(images)))
    for vote in votes:
        cells[:, rows[vote.rater], columns[vote.image]] += (vote.value, 1.0)
    return cells


def _shares(
    cells: NDArray[numpy.float64], raters: NDArray[numpy.int64], images: NDArray[numpy.int64]
) -> NDArray[numpy.float64]:
    """Share of yes in each draw of ``raters`` [draws,raters] and ``images`` [draws,images]; nan
    where a draw has no vote."""
    sums, counts = (((raters @ each) * images).sum(1) for each in cells)
    return numpy.divide(sums, counts, out=numpy.full_like(sums, numpy.nan), where=counts > 0)


def _without_draws(groups: Sequence[Sequence[Vote]], value: float) -> tuple[float, float]:
    counts = [len({vote.image for vote in group}) for group in groups]
    own, *other = (wilson(round(_share(group) * count), count) for group, count in zip(groups, counts, strict=True))
    if not other:
        return own.low, own.high
    down = math.hypot(own.value - own.low, other[0].high - other[0].value)
    up = math.hypot(own.high - own.value, other[0].value - other[0].low)
    return value - down, value + up


def _squared_sums(influences: Iterable[tuple[str, float]]) -> tuple[float, int]:
    """Sum of the squared sums of each name, with n / (n - 1), and the number n of names."""
    sums: dict[str, float] = {}
    for name, each in influences:
        sums[name] = sums.get(name, 0.0) + each
    count = len(sums)
    return sum(each**2 for each in sums.values()) * count / max(1, count - 1), count
