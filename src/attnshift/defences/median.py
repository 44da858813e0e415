"""Feature squeezing by a median filter (Xu et al., NDSS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from attnshift.registry import STRICT

__all__ = ["Median"]


@dataclass(frozen=True)
class Median:
    """Median of ``size`` x ``size`` pixels (1 to 15) around each pixel, per channel.

    The border is repeated. As in the authors' scipy filter, an even window extends one pixel
    further to the top left, and its median is the upper one. scipy mirrors the border, which is the
    same for their sizes, 2 and 3. The gradient goes to the chosen pixel.
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = True
    size: Annotated[int, Field(ge=1, le=15)] = 2

    def __call__(self, images: Tensor) -> Tensor:
        before = self.size // 2
        after = self.size - 1 - before
        padded = pad(images, (before, after, before, after), mode="replicate")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        # Stable: among equal pixels the first takes the gradient, on every device.
        return windows.sort(dim=4, stable=True).values[..., self.size**2 // 2]
