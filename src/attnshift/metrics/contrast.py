"""Contrast around a pixel, which hides changes there."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

__all__ = ["local_contrast"]

_SIDE = 7
"""Side of a neighbourhood in pixels."""


def local_contrast(images: Tensor) -> Tensor:
    """Contrast [batch,1,height,width] of ``images`` [batch,3,height,width] in [0,1]: a standard
    deviation, the root of the channels' mean variance.

    Contrast masks what is added to it (Legge and Foley, JOSA 1980). A pixel counts as the calmest
    of the neighbourhoods of 7 x 7 pixels that hold it: flat ground beside an edge is flat. Borders
    are mirrored.
    """
    framed = pad(images.double(), (_SIDE // 2,) * 4, mode="reflect")
    variance = avg_pool2d(framed.square(), _SIDE, 1) - avg_pool2d(framed, _SIDE, 1).square()
    calmest = -max_pool2d(-variance.mean(1, keepdim=True), _SIDE, 1, _SIDE // 2)
    return calmest.clamp(min=0).sqrt().to(images)
