"""Random draws that depend on an image's content alone."""

from __future__ import annotations

import hashlib

import numpy
from torch import Tensor

from attnshift.randomness import generator

__all__ = ["generators"]


def generators(images: Tensor, seed: int, *purpose: str) -> list[numpy.random.Generator]:
    """One generator for each of ``images`` [batch,3,height,width].

    Its key is (seed, content, purpose). Content is the hash of the image's size and its 8-bit
    pixels: the same file gives the same draws in every batch and on every device. An attack that
    moves a pixel to another level gets new draws. The iterates of an attack are not rounded yet, so
    a difference in the last bit, as from another batch size, can change draws too.
    """
    pixels = (images.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    digests = [hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest() for image in pixels]
    return [generator(seed, digest, *purpose) for digest in digests]
