"""Curves of success against naturalness, and success at a fixed naturalness. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from attnshift.metrics.statistics import Estimate, percentiles, resample

__all__ = ["Curve", "Reading", "interpolate", "read_curves"]

_Values = NDArray[numpy.float64]

_ENOUGH = 0.95
"""Least share of the resamples that must reach a naturalness, for an interval to be given."""


@dataclass(frozen=True)
class Curve:
    """Success of an attack at several settings, such as strengths, and at each on the same images.

    ``naturalness`` [settings,images], such as SSIM, is finite. ``success`` [settings,images] is nan
    for an image that does not count. The points of the curve are means over images.
    """

    naturalness: _Values
    success: _Values


@dataclass(frozen=True)
class Reading:
    """Success of a curve at the naturalness ``at``, and its ``gap`` to the first curve.

    ``success`` is None if the curve does not reach ``at``; then ``reason`` says why. ``gap`` is
    None if one of the two curves does not reach it. An interval is nan if fewer than 95 % of the
    resamples reach it.
    """

    at: float
    success: Estimate | None
    gap: Estimate | None
    reason: str = ""


def read_curves(curves: Sequence[Curve], at: float) -> list[Reading]:
    """Reading of each curve at the naturalness ``at``.

    All curves have the same images in the same order.

    A curve is a straight line between its two nearest points, and unknown beyond its points.
    Intervals are percentile bootstraps over images. All curves share the resamples, and each
    resample has its own points.
    """
    count = curves[0].success.shape[1]
    everything, drawn = numpy.arange(count)[None], resample(count, ("curves",))
    values = [float(_read(curve, everything, at)[0]) for curve in curves]
    resampled = [_read(curve, drawn, at) for curve in curves]
    known = [int((~numpy.isnan(curve.success)).any(0).sum()) for curve in curves]
    return [
        Reading(
            at,
            _estimate(value, own, images),
            _estimate(value - values[0], own - resampled[0], min(images, known[0])),
            _reason(curve, at) if numpy.isnan(value) else "",
        )
        for curve, value, own, images in zip(curves, values, resampled, known, strict=True)
    ]


def interpolate(naturalness: _Values, success: _Values, at: float) -> _Values:
    """Success [resamples] at the naturalness ``at``, on lines between points [settings,resamples].

    It is nan beyond the points.
    Points of equal naturalness count as one, with their mean success.

    >>> interpolate(numpy.array([[0.8], [1.0]]), numpy.array([[0.6], [0.2]]), 0.9).round(3)
    array([0.4])
    """
    below = numpy.where(naturalness <= at, naturalness, -numpy.inf).max(0)
    above = numpy.where(naturalness >= at, naturalness, numpy.inf).min(0)
    left, right = (_mean(success, naturalness == end, axis=0) for end in (below, above))
    with numpy.errstate(invalid="ignore"):
        share = numpy.where(below == above, 0.0, (at - below) / (above - below))
    return left + share * (right - left)


def _read(curve: Curve, drawn: NDArray[numpy.int64], at: float) -> _Values:
    """Success at the naturalness ``at``, in each resample of ``drawn`` [resamples,images]."""
    # Means are taken one setting at a time: settings with equal values have means equal to the last
    # bit.
    naturalness = numpy.stack([row[drawn].mean(1) for row in curve.naturalness])
    success = numpy.stack([_mean(row[drawn], ~numpy.isnan(row[drawn]), axis=1) for row in curve.success])
    return interpolate(naturalness, success, at)


def _mean(values: _Values, counted: NDArray[numpy.bool_], axis: int) -> _Values:
    """Mean of the ``counted`` values along ``axis``; nan if no value counts."""
    with numpy.errstate(invalid="ignore"):
        return numpy.where(counted, values, 0.0).sum(axis) / counted.sum(axis)


def _estimate(value: float, resampled: _Values, count: int) -> Estimate | None:
    if numpy.isnan(value):
        return None
    reached = resampled[~numpy.isnan(resampled)]
    enough = len(reached) >= _ENOUGH * len(resampled)
    low, high = percentiles(reached) if enough else (float("nan"), float("nan"))
    return Estimate(value, low, high, count)


def _reason(curve: Curve, at: float) -> str:
    means = curve.naturalness.mean(1)
    if means.min() > at:
        return "stays above"
    return "stays below" if means.max() < at else "no image counts"
