"""Numbers and pictures as people read them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy
from PIL import Image

from attnshift.metrics.statistics import Estimate

__all__ = ["chance", "change_map", "data_url", "decimal", "heat_overlay", "number", "percent", "pixels"]


def percent(estimate: Estimate) -> str:
    """``62 % [48, 74]``, or ``62 %`` where there is no interval."""
    if not estimate.count:
        return "–"
    if math.isnan(estimate.low):
        return f"{round(100 * estimate.value) + 0} %"
    low, high = (round(100 * bound) + 0 for bound in (estimate.low, estimate.high))
    return f"{round(100 * estimate.value) + 0} % [{low}, {high}]"


def number(estimate: Estimate, digits: int = 3) -> str:
    """``0.931 [0.920, 0.941]``, or ``equal`` where every image is equal to the clean one."""
    if math.isinf(estimate.value):
        return "equal"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def chance(p: float) -> str:
    """A p value.

    >>> chance(0.0352), chance(0.00004)
    ('0.035', '< 0.001')
    """
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def decimal(value: float, digits: int = 2) -> str:
    """``value`` with all of its digits, at least ``digits`` of them after the point.

    >>> decimal(0.9), decimal(0.925)
    ('0.90', '0.925')
    """
    return f"{value:.{max(digits, len(f'{value:g}'.partition('.')[2]))}f}"


def data_url(pixels: numpy.ndarray) -> str:
    """PNG of uint8 pixels [height,width,3] as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def pixels(path: Path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


_PALETTE = numpy.array([[0, 0, 0], [87, 15, 110], [186, 54, 85], [250, 143, 10], [252, 255, 163]])
"""Colours from no change to the largest one, as in the report."""


def change_map(clean: numpy.ndarray, attack: numpy.ndarray) -> numpy.ndarray:
    """Where two images of uint8 [height,width,3] differ: the largest change of the three values of
    each pixel. Black is none, and the brightest colour the largest change of the whole image."""
    change = abs(attack.astype(int) - clean.astype(int)).max(2)
    place = change / max(1, change.max()) * (len(_PALETTE) - 1)
    colours = [numpy.interp(place, range(len(_PALETTE)), values) for values in _PALETTE.T]
    return numpy.stack(colours, 2).round().astype(numpy.uint8)


def heat_overlay(image: numpy.ndarray, attention: Sequence[float], rows: int, peak: float) -> numpy.ndarray:
    """Attention laid over a darkened image; ``attention`` is a map of so many ``rows``, and
    ``peak`` the value that glows fully, so that two maps can compare."""
    values = numpy.asarray(attention, dtype=numpy.float32).reshape(rows, -1)
    values = (values / max(peak, 1e-12)).clip(0, 1)
    height, width = image.shape[:2]
    large = Image.fromarray((values * 255).astype(numpy.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    heat = numpy.asarray(large, dtype=numpy.float32)[..., None] / 255
    grey = image.mean(2, keepdims=True) * 0.45
    glow = heat * numpy.array([255.0, 150.0, 20.0])
    return (grey * (1 - 0.6 * heat) + glow).clip(0, 255).astype(numpy.uint8)
