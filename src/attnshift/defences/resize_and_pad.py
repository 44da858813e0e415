"""Randomisation at inference time (Xie et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attnshift.defences.content import generators
from attnshift.ensemble import transforms
from attnshift.registry import STRICT

__all__ = ["ResizeAndPad"]


@dataclass(frozen=True)
class ResizeAndPad:
    """Resizes the image to a random share of its sides, from ``smallest`` to 1, and places it at random on black.

    The authors enlarge 299 pixels to 299 up to 330 and pad to 331, which their networks read. Ours resize whatever
    comes to their own input, so that only the ratio remains: ``smallest`` = 299 / 331, rounded. Bilinear, where
    the authors take the nearest pixel.
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    smallest: Annotated[float, Field(ge=0.1, le=1)] = 0.9
    seed: Annotated[int, Field(ge=0)] = 0

    def __call__(self, images: Tensor) -> Tensor:
        return transforms.ResizeAndPad(self.smallest)(images, generators(images, self.seed, "resize_and_pad"))
