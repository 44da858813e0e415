"""Randomisation at inference time (Xie et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attnshift.defences.content import generators
from attnshift.ensemble import transforms
from attnshift.registry import STRICT

__all__ = ["RandomResizeAndPad"]


@dataclass(frozen=True)
class RandomResizeAndPad:
    """Image at a random size, from ``smallest`` to 1 of its sides, and a random place on black.

    The authors resize 299 pixels to a random size from 299 to 330 and pad to 331, the input of
    their networks. Our classifiers resize any image to their own input, so only the ratio remains:
    ``smallest`` = 299 / 331, rounded. We interpolate bilinearly; the authors take the nearest
    pixel.
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    smallest: Annotated[float, Field(ge=0.1, le=1)] = 0.9
    seed: Annotated[int, Field(ge=0)] = 0

    def __call__(self, images: Tensor) -> Tensor:
        return transforms.ResizeAndPad(self.smallest)(images, generators(images, self.seed, "resize_and_pad"))
