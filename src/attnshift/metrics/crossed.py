"""Figures from votes of several raters on several images, with intervals, power and agreement.

Each rater votes on many images, and each image has votes of many raters. Votes of one rater are no
independent draws, and neither are votes on one image. Free of torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from attnshift.metrics.statistics import Estimate, score_ends, student_quantile, wilson

__all__ = ["Spread", "Vote", "estimate_share", "nominal_alpha", "spread_of"]

_LEVEL, _POWER = 0.95, 0.8
_MOST = 1_000_000
"""Raters beyond which no number of them is looked for."""


@dataclass(frozen=True)
class Vote:
    """Vote of a ``rater`` on an ``image``: ``value`` is 1 for yes and 0 for no."""

    rater: str
    image: str
    value: float


@dataclass(frozen=True)
class Spread:
    """Variance of a share or of a difference of shares over ``raters`` and ``images``, in three
    parts.

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
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.of_raters + self.of_images + self.rest)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error, of which one part is measured on the raters and
        one on the images (Satterthwaite, Biometrics Bulletin 1946); at least 1."""
        by_rater, by_image = self.of_raters + self.rest, self.of_images + self.rest
        return max(1.0, self.error**4 / (by_rater**2 / (self.raters - 1) + by_image**2 / (self.images - 1)))

    @property
    def detectable(self) -> float:
        """The smallest true difference that a two-sided test at 5 % finds in 80 % of studies of
        this size."""
        return self.error * sum(student_quantile(each, self.freedom) for each in ((1 + _LEVEL) / 2, _POWER))

    def with_raters(self, raters: int) -> Spread:
        """The spread of a study with so many ``raters`` on as many images."""
        factor = self.raters / raters
        return replace(self, raters=raters, of_raters=self.of_raters * factor, rest=self.rest * factor)

    def raters_for(self, difference: float) -> int | None:
        """Raters who find a true ``difference`` with 80 % power on as many images; None where no
        number of them does."""
        if self.with_raters(_MOST).detectable > difference:
            return None
        low, high = 1, _MOST
        while high - low > 1:
            middle = (low + high) // 2
            found = self.with_raters(middle).detectable <= difference
            low, high = (low, middle) if found else (middle, high)
        return high

    def images_for(self, difference: float) -> int:
        """Images that a study needs at least where no number of raters finds a true ``difference``
        with 80 % power on as many."""
        quantiles = sum(NormalDist().inv_cdf(each) for each in ((1 + _LEVEL) / 2, _POWER))
        return max(self.images, math.floor(self.of_images * self.images * (quantiles / difference) ** 2)) + 1


def spread_of(votes: Sequence[Vote], against: Sequence[Vote] | None = None) -> Spread | None:
    """Spread of the share of yes among ``votes``, or of its difference to the share among the votes
    ``against``; None where there are fewer than two raters or images, or where all votes of a group
    are equal in each.

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


def estimate_share(votes: Sequence[Vote], against: Sequence[Vote] | None = None) -> Estimate:
    """Share of yes among ``votes``, or how much it exceeds the share among the votes ``against``,
    with a 95 % interval that covers other raters and other images. The count is of images.

    The interval of a share is Wilson's with the number of independent votes that would have the
    same variance (``spread_of``) and Student's quantile. That of a difference is symmetric. Where
    there is no spread, an interval is Wilson's as if each image had one vote, and for a difference
    Newcombe's of two such intervals (Statistics in Medicine 1998, method 10).
    """
    groups = [votes] if against is None else [votes, against]
    if not all(groups):
        return Estimate(math.nan, math.nan, math.nan, 0)
    spread, images = spread_of(votes, against), len({vote.image for vote in votes})
    own, other = _share(votes), 0.0 if against is None else _share(against)
    if spread is None:
        return Estimate(own - other, *_ends_without_spread(groups), images)
    away = student_quantile((1 + _LEVEL) / 2, spread.freedom)
    if against is None:
        return Estimate(own, *score_ends(own, own * (1 - own) / spread.error**2, away), images)
    low, high = own - other - away * spread.error, own - other + away * spread.error
    return Estimate(own - other, max(-1.0, low), min(1.0, high), images)


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


def _share(votes: Sequence[Vote]) -> float:
    return sum(vote.value for vote in votes) / len(votes)


def _ends_without_spread(groups: Sequence[Sequence[Vote]]) -> tuple[float, float]:
    counts = [len({vote.image for vote in group}) for group in groups]
    own, *others = (wilson(round(_share(group) * count), count) for group, count in zip(groups, counts, strict=True))
    if not others:
        return own.low, own.high
    (other,) = others
    down = math.hypot(own.value - own.low, other.high - other.value)
    up = math.hypot(own.high - own.value, other.value - other.low)
    return own.value - other.value - down, own.value - other.value + up


def _squared_sums(influences: Iterable[tuple[str, float]]) -> tuple[float, int]:
    """Sum of the squared sums of each name, with n / (n - 1), and the number n of names."""
    sums: dict[str, float] = {}
    for name, each in influences:
        sums[name] = sums.get(name, 0.0) + each
    count = len(sums)
    return sum(each**2 for each in sums.values()) * count / max(1, count - 1), count
