"""Random numbers as pure functions of a key.

A key says what a draw is for, such as ``(seed, image id, iteration, purpose)``. No state is shared
and no draws are counted, so a draw depends neither on the batch, nor on the order, nor on the
worker, nor on whether a run was resumed. Draws are made on the CPU in float64 and then moved, so
they are the same on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["generator", "normal", "normal_like", "random_step"]


def generator(*key: int | str) -> numpy.random.Generator:
    """Random generator that depends on ``key`` alone.

    >>> float(generator(0, "image", 3).random()) == float(generator(0, "image", 3).random())
    True
    >>> float(generator(0, "image", 3).random()) == float(generator(0, "image", 4).random())
    False
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return numpy.random.Generator(numpy.random.PCG64(int.from_bytes(digest[:16], "big")))


def normal(shape: tuple[int, ...], *key: int | str) -> Tensor:
    """Standard normal values of ``shape`` (fp32, on the CPU) that depend on ``key`` alone."""
    import torch

    return torch.from_numpy(generator(*key).standard_normal(shape)).float()


def normal_like(batch: Tensor, seed: int, ids: Sequence[str], *purpose: int | str) -> Tensor:
    """Standard normal values like ``batch`` [batch,...]; an image's depend on ``seed``, its one of
    ``ids`` and ``purpose`` alone."""
    import torch

    return torch.stack([normal(tuple(batch.shape[1:]), seed, id, *purpose) for id in ids]).to(batch)


def random_step(start: Tensor, end: Tensor, seed: int, ids: Sequence[str]) -> Tensor:
    """Points as far from ``start`` as ``end`` is (L2 norm), each in a random direction.

    All are [batch,channels,rows,columns]. The direction depends on ``seed`` and the image's
    id.
    """
    direction = normal_like(start, seed, ids, "noise")
    lengths = (end - start).flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1)
    return start + lengths.view(-1, 1, 1, 1) * direction
