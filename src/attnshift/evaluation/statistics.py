"""Intervals. Free of torch, so that the report can use it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy
from numpy.typing import ArrayLike

from attnshift.randomness import generator

__all__ = ["Estimate", "bootstrap", "wilson"]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``count`` is how many images it rests on."""

    value: float
    low: float
    high: float
    count: int


def wilson(successes: int, count: int, level: float = 0.95) -> Estimate:
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
    values: ArrayLike, names: Sequence[int | str] = (), level: float = 0.95, resamples: int = 4000
) -> Estimate:
    """Percentile interval of the mean over images (Efron 1979); ``names`` seed the resampling."""
    sample = numpy.asarray(values, dtype=float)
    sample = sample[~numpy.isnan(sample)]
    if not len(sample):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    picks = generator("bootstrap", *names).integers(len(sample), size=(resamples, len(sample)))
    low, high = numpy.quantile(sample[picks].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(sample.mean()), float(low), float(high), len(sample))
