"""Attacked images as 8-bit files hold them."""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor

from attnshift.randomness import generator
from attnshift.types import RandomKey

__all__ = ["dithered", "nearest_within", "towards"]


def towards(images: Tensor, attacked: Tensor) -> Tensor:
    """``attacked`` in steps of 1/255 from ``images``, towards them: 8-bit files lie within the
    radius as well."""
    # The factor keeps a step that is whole but for a rounding error.
    return images + ((attacked - images) * 255 * (1 + 1e-4)).trunc() / 255


def nearest_within(images: Tensor, attacked: Tensor, radius: float) -> Tensor:
    """``attacked`` in [0,1] in steps of 1/255 from ``images``, to the nearest that lies within
    ``radius``."""
    highest = floor(radius * 255 * (1 + 1e-4))
    return images + ((attacked - images) * 255).round().clamp(-highest, highest) / 255


def dithered(images: Tensor, key: RandomKey) -> Tensor:
    """Images [batch,3,height,width] in [0,1] in steps of 1/255, up or down at random so that the
    mean stays: a radius of 2.4 levels is not one of 2."""
    drawn = [torch.from_numpy(generator(key.seed, id, "dither").random(images.shape[1:])) for id in key.ids]
    return (images * 255 + torch.stack(drawn).to(images)).floor().clamp(0, 255) / 255
