"""Rows of the tables, made of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from attnshift.data.datasets import Item
from attnshift.results.inspection import EVERY, AlignmentRow, MapRow, PictureRow
from attnshift.studies.inspection.gradients import Alignment
from attnshift.studies.inspection.maps import MapFigures

__all__ = ["alignment_row", "map_row", "picture_rows"]

_SHOWN = 128
"""Largest side of a picture that is kept for the page."""


def alignment_row(item: Item, iteration: int, found: Alignment, image: int) -> AlignmentRow:
    """The row of one direction of the ``image`` at this place of the batch."""
    return AlignmentRow(
        id=item.id,
        file=item.file,
        iteration=iteration,
        kind=found.kind,
        name=found.name,
        place=found.place,
        side=found.side,
        head=found.head,
        step=found.step,
        cosine=_number(found.cosine[image]),
        ratio=_number(found.ratio[image]),
    )


def map_row(item: Item, iteration: int, figures: MapFigures) -> MapRow:
    """The row of one map."""
    probe = figures.probe
    return MapRow(
        id=item.id,
        file=item.file,
        iteration=iteration,
        place=probe.group.place,
        side=probe.group.side,
        head=probe.head,
        step=probe.step,
        mass=figures.mass,
        entropy=figures.entropy,
        peak_inside=figures.peak_inside,
        share_inside=figures.share_inside,
        area=figures.area,
    )


def picture_rows(
    item: Item, iteration: int, image: Tensor, shown: Tensor | None, figures: Sequence[MapFigures]
) -> Iterator[PictureRow]:
    """The image [3,side,side], the map of its object [1,side,side], and the map of each group of
    sites, all heads and steps."""

    def row(name: str, values: Tensor, side: int) -> PictureRow:
        flat = tuple(round(each, 4) for each in values.flatten().tolist())
        return PictureRow(item.id, item.file, item.class_name, iteration, name, side, flat)

    small = _reduced(image)
    yield row("image", small.permute(1, 2, 0), small.shape[-1])
    if shown is not None:
        object = _reduced(shown)
        yield row("object", object, object.shape[-1])
    for each in figures:
        if (each.probe.head, each.probe.step) == (EVERY, EVERY):
            group, highest = each.probe.group, each.values.max().clamp(min=1e-12)
            yield row(f"{group.place} {group.side} x {group.side}", each.values / highest, group.side)


def _reduced(image: Tensor) -> Tensor:
    """``image`` [channels,height,width], no larger than a picture of the page."""
    if image.shape[-1] <= _SHOWN:
        return image.clamp(0, 1)
    return torch.nn.functional.interpolate(image[None], (_SHOWN, _SHOWN), mode="area")[0].clamp(0, 1)


def _number(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
