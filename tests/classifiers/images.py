"""An image for comparing our preprocessing with that of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Preprocessing


def photograph(side: int = 120) -> Image.Image:
    """Smooth colours with texture, and room for what a bicubic kernel overshoots."""
    draws = numpy.random.default_rng(0)
    coarse = Image.fromarray(draws.integers(60, 196, (7, 7, 3), dtype=numpy.uint8))
    smooth = numpy.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + draws.integers(-12, 13, smooth.shape)).clip(30, 225).astype(numpy.uint8))


def levels_apart(preprocessing: Preprocessing, image: Image.Image, expected: Tensor) -> float:
    """Largest difference of our input from ``expected`` [3,height,width], in levels of 255."""
    pixels = torch.from_numpy(numpy.asarray(image).copy()).movedim(2, 0) / 255
    given = preprocessing(pixels[None])[0]
    assert given.shape == expected.shape
    return float(((given - expected) * torch.tensor(preprocessing.std).view(3, 1, 1)).abs().max() * 255)
