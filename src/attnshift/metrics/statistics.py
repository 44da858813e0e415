"""Intervals and tests. Free of torch, so that the report can use it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import NormalDist

import numpy
from numpy.typing import ArrayLike, NDArray

from attnshift.randomness import generator

__all__ = ["Change", "Estimate", "bootstrap", "by_chance", "holm", "mcnemar", "percentiles", "resample", "wilson"]

_LEVEL, _RESAMPLES = 0.95, 4000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``count`` is how many images it rests on."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Change:
    """What became of ``count`` images between two answers: ``won`` are true in the second alone, ``lost`` in the first.

    ``p`` is the probability of a difference as large or larger if winning and losing were equally likely.
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
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), count)


def bootstrap(
    values: ArrayLike, names: Sequence[int | str] = (), level: float = _LEVEL, resamples: int = _RESAMPLES
) -> Estimate:
    """Percentile interval of the mean over images (Efron 1979); ``names`` seed the resampling."""
    sample = numpy.asarray(values, dtype=float)
    sample = sample[~numpy.isnan(sample)]
    if not len(sample):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    low, high = percentiles(sample[resample(len(sample), names, resamples)].mean(1), level)
    return Estimate(float(sample.mean()), low, high, len(sample))


def resample(count: int, names: Sequence[int | str] = (), resamples: int = _RESAMPLES) -> NDArray[numpy.int64]:
    """Which of ``count`` images each resample holds, [resamples,count], each image as often as it was drawn."""
    return generator("bootstrap", *names).integers(count, size=(resamples, count))


def percentiles(values: NDArray[numpy.float64], level: float = _LEVEL) -> tuple[float, float]:
    """Between which two values the middle ``level`` of the resampled ``values`` [resamples] lies."""
    low, high = numpy.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Change:
    """Whether ``second`` is true of more images than ``first``, or of fewer: two-sided, the same images in both.

    McNemar's test (Psychometrika 1947) in its exact form: only the images on which the two differ count, and of these
    the number won is binomial with one half. It is valid for any number of images; without one that differs p is 1.

    >>> mcnemar([True] + 11 * [False], 7 * [True] + 5 * [False])
    Change(won=6, lost=0, p=0.03125, count=12)
    """
    won = sum(new and not old for old, new in zip(first, second, strict=True))
    lost = sum(old and not new for old, new in zip(first, second, strict=True))
    return Change(won, lost, min(1.0, 2 * by_chance(max(won, lost), won + lost)), len(first))


def by_chance(successes: int, count: int) -> float:
    """Probability of so many successes of ``count``, or more, where success and failure are equally likely.

    >>> by_chance(3, 3)
    0.125
    """
    return sum(comb(count, each) for each in range(successes, count + 1)) / 2**count


def holm(values: Sequence[float]) -> list[float]:
    """The p ``values`` of several tests, corrected so that none is below a level by chance more often than that level.

    Holm's step-down method (Scandinavian Journal of Statistics 1979): the smallest counts as often as there are tests,
    the next once less; none is smaller than the one before it, or larger than 1.

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    corrected = [0.0] * len(values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected
