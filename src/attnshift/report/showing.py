"""A picture of attacked images, for notebooks and for a look in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy
from PIL import Image

from attnshift.report.figures import change_map, heat_overlay

__all__ = ["show"]

_GAP = 4
"""Pixels of white between two pictures."""


class _History(Protocol):
    @property
    def attention(self) -> tuple[Any, Any]: ...


class _Attacked(Protocol):
    @property
    def images(self) -> Any: ...
    @property
    def clean(self) -> Any: ...
    @property
    def history(self) -> Sequence[_History]: ...


def show(result: _Attacked, scale: int = 2) -> Image.Image:
    """Picture of ``result``, an ``AttackResult``, with a row for each image.

    From left to right: before, after, and where they differ, on each image's own scale. After an
    attack on latents there follows the attention of the class's phrase, before and after, on one
    scale of brightness. Each picture is ``scale`` times as large as the image. A notebook shows the
    picture; elsewhere it has ``show()`` and ``save()``.
    """
    before, after = (_values(images) for images in (result.clean, result.images))
    rows = []
    for at, (clean, attacked) in enumerate(zip(before, after, strict=True)):
        looks = [clean, attacked, change_map(clean, attacked)]
        if result.history:
            maps = [numpy.asarray(each) for each in result.history[at].attention]
            peak = max(float(each.max()) for each in maps)
            images = zip((clean, attacked), maps, strict=True)
            looks += [heat_overlay(image, each.flatten().tolist(), len(each), peak) for image, each in images]
        rows.append(numpy.concatenate([_framed(look) for look in looks], 1))
    picture = Image.fromarray(numpy.concatenate(rows))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)


def _values(images: Any) -> numpy.ndarray:
    """Levels [batch,height,width,3] of images [batch,3,height,width] in [0,1]."""
    return (numpy.asarray(images.cpu()).transpose(0, 2, 3, 1) * 255).round().astype(numpy.uint8)


def _framed(picture: numpy.ndarray) -> numpy.ndarray:
    return numpy.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
