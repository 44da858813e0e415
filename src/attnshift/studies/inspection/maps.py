"""Entropy and mass of the class word's maps, and their pointing: whether they look where the object
is, by its mask or by Grad-CAM of a reference classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attention.maps import phrase_map, relative_entropy, shares_over_positions
from attnshift.studies.inspection.probes import MapProbe
from attnshift.types import Branch, TokenSpan

__all__ = ["MapFigures", "map_figures"]

_REGION = 0.5
"""Value of a mask, or share of Grad-CAM's maximum, from which on a pixel belongs to the object."""


@dataclass(frozen=True)
class MapFigures:
    """Figures of one map of one image; the last three are None without a region."""

    probe: MapProbe
    values: Tensor
    """The phrase's map, [rows,columns]."""
    mass: float
    entropy: float
    peak_inside: bool | None
    share_inside: float | None
    area: float | None


def map_figures(
    branch: Branch, probes: Sequence[MapProbe], span: TokenSpan, image: int, shown: Tensor | None
) -> Iterator[MapFigures]:
    """Figures of every map of the phrase ``span`` in one ``image`` of the batch.

    The maximum of a map stands for the pixel in the middle of its position, as in the pointing
    game, without its tolerance (Zhang et al., "Top-down neural attention by excitation backprop",
    ECCV 2016). Mass counts by the share of each position's pixels that belong to the object.
    ``shown`` [1,height,width] in [0,1] is the object's mask or Grad-CAM; None, or one that is 0
    everywhere, says nothing.
    """
    region = None if shown is None or not bool(shown.any()) else (shown[0] >= _REGION).float()
    for probe in probes:
        values = phrase_map(branch.attention, probe.sites, probe.select, span, image)
        share, entropy = shares_over_positions(values), float(relative_entropy(values))
        peak = inside = area = None
        if region is not None:
            peak = bool(region[_centre(values, region.shape[-1])])
            pooled = torch.nn.functional.adaptive_avg_pool2d(region[None], values.shape[-1])[0]
            inside, area = float((share * pooled).sum()), float(region.mean())
        yield MapFigures(probe, values, float(values.mean()), entropy, peak, inside, area)


def _centre(values: Tensor, side: int) -> tuple[int, int]:
    """Row and column of the pixel in the middle of the highest position of a map [rows,rows], in a
    picture of ``side`` x ``side`` pixels."""
    row, column = divmod(int(values.argmax()), values.shape[-1])
    scale = side / values.shape[-1]
    return int((row + 0.5) * scale), int((column + 0.5) * scale)
