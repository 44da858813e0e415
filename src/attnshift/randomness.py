"""Every random draw of the project comes from here, as a pure function of what it is for.

A draw is named by values such as ``(seed, image id, iteration, purpose)``. Nothing is shared and nothing is
counted, so that neither the batch, nor the order, nor the worker, nor a resumed run can change a draw. Draws are
made on the CPU in float64 and then moved, which makes them the same on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["generator", "normal", "random_step"]


def generator(*names: int | str) -> numpy.random.Generator:
    """Random generator that belongs to ``names`` alone.

    >>> float(generator(0, "image", 3).random()) == float(generator(0, "image", 3).random())
    True
    >>> float(generator(0, "image", 3).random()) == float(generator(0, "image", 4).random())
    False
    """
    digest = hashlib.sha256(repr(names).encode()).digest()
    return numpy.random.Generator(numpy.random.PCG64(int.from_bytes(digest[:16], "big")))


def normal(shape: tuple[int, ...], *names: int | str) -> Tensor:
    """Standard normal values of ``shape`` (fp32, on the CPU) that belong to ``names`` alone."""
    import torch

    return torch.from_numpy(generator(*names).standard_normal(shape)).float()


def random_step(start: Tensor, end: Tensor, seed: int, identities: Sequence[str]) -> Tensor:
    """Points as far from ``start`` as ``end`` is (L2 norm), in a random direction that belongs to each image; all
    [batch,channels,rows,columns]."""
    import torch

    drawn = [normal(tuple(start.shape[1:]), seed, identity, "noise") for identity in identities]
    direction = torch.stack(drawn).to(start)
    lengths = (end - start).flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1)
    return start + lengths.view(-1, 1, 1, 1) * direction
