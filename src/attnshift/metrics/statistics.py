"""Confidence intervals and statistical tests. Free of torch, so that reports start fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import NormalDist

import numpy
from numpy.typing import ArrayLike, NDArray

from attnshift.randomness import generator

__all__ = [
    "Change",
    "Estimate",
    "bootstrap",
    "by_chance",
    "holm",
    "mcnemar",
    "percentiles",
    "resample",
    "score_ends",
    "student",
    "student_quantile",
    "wilson",
]

_LEVEL, _RESAMPLES = 0.95, 4000


@dataclass(frozen=True)
class Estimate:
    """Value with its interval from ``low`` to ``high``, from ``count`` images."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Change:
    """Change between two answers on ``count`` images.

    ``won`` images are true in the second answer alone, ``lost`` ones in the first alone. ``p`` is
    the probability of a difference as large or larger, if wins and losses are equally likely.
    """

    won: int
    lost: int
    p: float
    count: int


def wilson(successes: int, count: int, level: float = _LEVEL) -> Estimate:
    """Score interval of a proportion (Wilson, JASA 1927).

    >>> estimate = wilson(8, 10)
    >>> round(estimate.low, 3), round(estimate.high, 3)
    (0.49, 0.943)
    """
    if count == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    return Estimate(successes / count, *score_ends(successes / count, count, z), count)


def score_ends(share: float, count: float, z: float) -> tuple[float, float]:
    """Ends of the score interval of a ``share`` of ``count``, which lie ``z`` standard errors away
    as these would be at the ends."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    values: ArrayLike, key: Sequence[int | str] = (), level: float = _LEVEL, resamples: int = _RESAMPLES
) -> Estimate:
    """Percentile bootstrap interval of the mean over images (Efron 1979).

    ``values`` are [images], or [seeds,images] of several runs: then seeds are drawn with
    replacement as well, and the interval covers both. An image with a value that is nan does not
    count. ``key`` is the random key of the resampling.
    """
    sample = numpy.atleast_2d(numpy.asarray(values, dtype=float))
    sample = sample[:, ~numpy.isnan(sample).any(0)]
    seeds, count = sample.shape
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    drawn = resample(count, key, resamples)
    if seeds == 1:
        means = sample[0][drawn].mean(1)
    else:
        runs = generator("bootstrap of seeds", *key).integers(seeds, size=(resamples, seeds))
        means = sample[runs[:, :, None], drawn[:, None]].mean((1, 2))
    low, high = percentiles(means, level)
    return Estimate(float(sample.mean()), low, high, count)


def resample(count: int, key: Sequence[int | str] = (), resamples: int = _RESAMPLES) -> NDArray[numpy.int64]:
    """Indices [resamples,count] of images, drawn from ``count`` images with replacement."""
    return generator("bootstrap", *key).integers(count, size=(resamples, count))


def percentiles(values: NDArray[numpy.float64], level: float = _LEVEL) -> tuple[float, float]:
    """Lower and upper end of the middle ``level`` of the resampled ``values`` [resamples]."""
    low, high = numpy.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Change:
    """McNemar's exact, two-sided test of the difference between two answers on the same images.

    Only images on which the answers differ count. The number of them that are won is binomial with
    one half (Psychometrika 1947). The test is valid for any number of images. If no answers differ,
    p is 1.

    >>> mcnemar([True] + 11 * [False], 7 * [True] + 5 * [False])
    Change(won=6, lost=0, p=0.03125, count=12)
    """
    won = sum(new and not old for old, new in zip(first, second, strict=True))
    lost = sum(old and not new for old, new in zip(first, second, strict=True))
    return Change(won, lost, min(1.0, 2 * by_chance(max(won, lost), won + lost)), len(first))


def by_chance(successes: int, count: int) -> float:
    """Probability of ``successes`` or more of ``count``, if success and failure are equally likely.

    >>> by_chance(3, 3)
    0.125
    """
    return sum(comb(count, each) for each in range(successes, count + 1)) / 2**count


def student(values: ArrayLike) -> float:
    """Two-sided p of Student's test that the mean of ``values`` [images] is 0 (Biometrika 1908).

    Values that are nan do not count; there must be two others. With t = sqrt(n - 1) tan(a) the
    density of Student's distribution is that of cos(a)^(n - 2), whose integral is a sum here.

    >>> round(student([1.0, 2.0, 3.0, 4.0]), 4)
    0.0305
    """
    sample = numpy.asarray(values, dtype=float)
    sample = sample[~numpy.isnan(sample)]
    spread, freedom = sample.std(ddof=1), len(sample) - 1
    if not spread:
        return 0.0 if sample.mean() else 1.0
    angle = numpy.arctan(abs(sample.mean()) / (spread / len(sample) ** 0.5) / freedom**0.5)
    tail, whole = (_cosine_power(start, freedom - 1) for start in (float(angle), 0.0))
    return tail / whole


def student_quantile(probability: float, freedom: float) -> float:
    """Value that Student's variable with ``freedom`` degrees, at least 1, stays below with
    ``probability``, at least one half.

    >>> round(student_quantile(0.975, 1), 3), round(student_quantile(0.975, 10), 3)
    (12.706, 2.228)
    """
    angles = numpy.linspace(0, numpy.pi / 2, 20_001)
    heights = numpy.cos(angles) ** (freedom - 1)
    below = numpy.concatenate([[0.0], numpy.cumsum(heights[1:] + heights[:-1])])
    return float(freedom**0.5 * numpy.tan(numpy.interp(2 * probability - 1, below / below[-1], angles)))


def _cosine_power(start: float, power: int) -> float:
    """Integral of cos^power from ``start`` to pi / 2."""
    angles = numpy.linspace(start, numpy.pi / 2, 20_001)
    return float(numpy.trapezoid(numpy.cos(angles) ** power, angles))


def holm(values: Sequence[float]) -> list[float]:
    """Corrected p ``values`` of several tests, by Holm's step-down method.

    The chance that any is below a level is at most that level, if all null hypotheses are true
    (Scandinavian Journal of Statistics 1979). The smallest value is multiplied by the number of
    tests, the next by one less, and so on. No value is smaller than the one before it, or larger
    than 1.

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    corrected = [0.0] * len(values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected
