"""Random draws that belong to what an image shows, and to nothing around it."""

from __future__ import annotations

import hashlib

import numpy
from torch import Tensor

from attnshift.randomness import generator

__all__ = ["generators"]


def generators(images: Tensor, seed: int, *purpose: str) -> list[numpy.random.Generator]:
    """One generator for each of ``images`` [batch,3,height,width], by (seed, content, purpose).

    Content is the hash of the image's size and of its pixels in 8 bits: the same file draws the same in every batch and
    on every device. An attack faces a new draw with every pixel that it moves to another level; between its iterates,
    which are not yet files, even the last bit can do that, and with it the size of the batch.
    """
    pixels = (images.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    digests = [hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest() for image in pixels]
    return [generator(seed, digest, *purpose) for digest in digests]
