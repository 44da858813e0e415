"""Success against naturalness along a knob, and success where naturalness is fixed. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from attnshift.metrics.statistics import Estimate, percentiles, resample

__all__ = ["Curve", "Reading", "interpolate", "read_curves"]

_Values = NDArray[numpy.float64]

_ENOUGH = 0.95
"""Share of the resamples that must reach a naturalness for there to be an interval."""


@dataclass(frozen=True)
class Curve:
    """What an attack achieves as a knob moves: one row per setting of the knob, one column per image.

    ``naturalness`` [settings,images], such as SSIM, is finite; ``success`` [settings,images] is nan for an image that
    does not count. Its points are the means over the images.
    """

    naturalness: _Values
    success: _Values


@dataclass(frozen=True)
class Reading:
    """Success where a curve has the naturalness ``at``, and by how much it exceeds the first curve's there.

    ``success`` is None where the curve does not reach it, for the ``reason``; ``gap`` is None where one of the two does
    not. An interval is nan where fewer than 95 % of the resamples reach it.
    """

    at: float
    success: Estimate | None
    gap: Estimate | None
    reason: str = ""


def read_curves(curves: Sequence[Curve], at: float) -> list[Reading]:
    """Every curve read where its naturalness is ``at``, all of them over the same images in the same order.

    Between the two nearest points on either side a curve is a straight line, and beyond its points it is unknown.
    Intervals are percentile bootstraps over images: all curves share the resamples, and each resample has points of
    its own, between which it is read.
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
    """Success [resamples] where naturalness is ``at``, on the lines between points [settings,resamples]; else nan.

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
    """Success where naturalness is ``at``, in each resample of ``drawn`` [resamples,images]."""
    # One setting after the other: settings with equal values have means that are equal to the last bit.
    naturalness = numpy.stack([row[drawn].mean(1) for row in curve.naturalness])
    success = numpy.stack([_mean(row[drawn], ~numpy.isnan(row[drawn]), axis=1) for row in curve.success])
    return interpolate(naturalness, success, at)


def _mean(values: _Values, counted: NDArray[numpy.bool_], axis: int) -> _Values:
    """Mean of the ``counted`` values along ``axis``; nan where none is."""
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
