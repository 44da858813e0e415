"""Feature squeezing by colour depth (Xu et al., NDSS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attnshift.defences.straight_through import straight_through
from attnshift.registry import STRICT

__all__ = ["BitDepth"]


@dataclass(frozen=True)
class BitDepth:
    """Rounding of each value to 2^``bits`` levels (``bits`` from 1 to 8), evenly spaced in [0,1].

    Rounding has a zero gradient. The gradient passes as if nothing were rounded (straight through).
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    bits: Annotated[int, Field(ge=1, le=8)] = 5

    def __call__(self, images: Tensor) -> Tensor:
        highest = 2**self.bits - 1
        return straight_through((images.clamp(0, 1) * highest).round() / highest, images)
