"""Intervals. Free of torch, so that the report can use it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy
from numpy.typing import ArrayLike, NDArray

from attnshift.randomness import generator

__all__ = ["Estimate", "bootstrap", "percentiles", "resample", "wilson"]

_LEVEL, _RESAMPLES = 0.95, 4000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``count`` is how many images it rests on."""

    value: float
    low: float
    high: float
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
