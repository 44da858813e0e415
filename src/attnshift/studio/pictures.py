"""Pictures that the page shows, as arrays of 8-bit RGB pixels [height,width,3]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from PIL import Image

__all__ = ["SHOWN", "difference", "enlarged", "heat", "overlay", "painted", "resized_map"]

SHOWN = 512
"""Least side of a picture on the page, in pixels; smaller images are enlarged."""

_HEAT = numpy.array(
    [[10, 12, 48], [76, 16, 120], [158, 42, 99], [222, 91, 56], [247, 165, 36], [252, 250, 190]], dtype=float
)
"""Colours of attention from none to most, evenly spaced; light grows from the first to the last."""
_FAINT, _STRONG = 0.3, 0.85
"""Share of the colours over the image where there is no attention, and where there is most."""


def enlarged(pixels: numpy.ndarray) -> numpy.ndarray:
    """``pixels`` at least ``SHOWN`` pixels wide, interpolated; a larger picture stays as it is."""
    if pixels.shape[1] >= SHOWN:
        return pixels
    rows = round(pixels.shape[0] * SHOWN / pixels.shape[1])
    return numpy.asarray(Image.fromarray(pixels).resize((SHOWN, rows), Image.Resampling.LANCZOS))


def heat(values: numpy.ndarray) -> numpy.ndarray:
    """Colours [height,width,3] of ``values`` [height,width] in [0,1].

    >>> heat(numpy.array([[0.0, 1.0]])).tolist()
    [[[10, 12, 48], [252, 250, 190]]]
    """
    places = numpy.linspace(0, 1, len(_HEAT))
    channels = [numpy.interp(values, places, channel) for channel in _HEAT.T]
    return numpy.stack(channels, -1).round().astype(numpy.uint8)


def overlay(pixels: numpy.ndarray, attention: numpy.ndarray, highest: float) -> numpy.ndarray:
    """``attention`` [side,side] in colours over the image ``pixels``; ``highest`` has the brightest
    colour."""
    below = enlarged(pixels)
    values = resized_map(attention, below.shape[0]) / max(highest, 1e-12)
    values = values.clip(0, 1)[..., None]
    share = _FAINT + (_STRONG - _FAINT) * values
    mixed = (1 - share) * below + share * heat(values[..., 0])
    return mixed.round().astype(numpy.uint8)


def resized_map(values: numpy.ndarray, side: int) -> numpy.ndarray:
    """A map [rows,rows] at another side, interpolated: [side,side] in float32."""
    small = Image.fromarray(numpy.ascontiguousarray(values, dtype=numpy.float32))
    return numpy.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def difference(clean: numpy.ndarray, changed: numpy.ndarray) -> tuple[numpy.ndarray, int, float]:
    """Change of each pixel on grey, scaled so that the largest one just fits.

    Returns the picture, the largest change in levels of 255, and the factor of the scale.

    >>> grey = numpy.full((1, 1, 3), 100, numpy.uint8)
    >>> difference(grey, grey + numpy.uint8(4))[1:]
    (4, 31.75)
    """
    change = changed.astype(float) - clean.astype(float)
    largest = float(numpy.abs(change).max())
    factor = 127 / largest if largest else 1.0
    return (128 + factor * change).round().clip(0, 255).astype(numpy.uint8), int(largest), factor


def painted(editor: Mapping[str, Any] | None, side: int) -> numpy.ndarray | None:
    """What was painted on the layers of an image editor, as a mask [side,side] of 0 and 255; None
    where nothing was.

    ``editor`` has the list ``layers`` of RGBA pixels.
    """
    layers: Sequence[numpy.ndarray] = (editor or {}).get("layers") or ()
    covered = [layer[..., 3] > 0 for layer in layers if layer.ndim == 3 and layer.shape[-1] == 4]
    if not any(each.any() for each in covered):
        return None
    together = numpy.logical_or.reduce(covered).astype(numpy.uint8) * 255
    small = Image.fromarray(together).resize((side, side), Image.Resampling.BOX)
    return numpy.where(numpy.asarray(small) >= 128, 255, 0).astype(numpy.uint8)
