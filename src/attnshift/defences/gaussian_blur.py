"""Feature squeezing by a Gaussian filter (the local smoothing of Xu et al., NDSS 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attnshift.registry import STRICT

__all__ = ["GaussianBlur"]


@dataclass(frozen=True)
class GaussianBlur:
    """Blur by a Gaussian of standard deviation ``sigma`` pixels.

    It is cut off at 3 sigma, and the border is mirrored.
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    sigma: Annotated[float, Field(ge=0, le=20)] = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        if self.sigma == 0:
            return images
        from kornia.filters import gaussian_blur2d

        # A mirrored border cannot be wider than the image.
        rows, columns = (2 * min(math.ceil(3 * self.sigma), side - 1) + 1 for side in images.shape[-2:])
        return gaussian_blur2d(images, (rows, columns), (self.sigma, self.sigma)).clamp(0, 1)
