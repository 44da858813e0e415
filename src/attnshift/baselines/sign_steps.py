"""Sign steps, and what they are made of: a fusion rule's direction, and random offsets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnshift.ensemble.fusion import FusionRule
from attnshift.ensemble.surrogates import Surrogates
from attnshift.randomness import generator
from attnshift.types import RandomKey

__all__ = ["FusedDirection", "of_size_one", "sign_steps", "uniform_offsets"]


class FusedDirection:
    """From an iteration's number and its points [batch,3,height,width] to the direction of ``rule``
    there, the gradient of what is lowered.

    The rule gets back the state that it returned in the call before.
    """

    def __init__(self, rule: FusionRule, surrogates: Surrogates):
        self._rule, self._surrogates = rule, surrogates
        self._state: Tensor | None = None

    def __call__(self, iteration: int, points: Tensor) -> Tensor:
        fused = self._rule(self._surrogates.at(iteration), points, self._state)
        self._state = fused.state
        return fused.direction


def sign_steps(
    points: Tensor,
    directions: Callable[[int, Tensor], Tensor],
    steps: int,
    step_size: Tensor | float,
    bounds: tuple[Tensor, Tensor],
    decay: float = 0.0,
) -> Tensor:
    """The last of so many ``steps`` from ``points`` [batch,3,height,width], within ``bounds``.

    Each goes ``step_size`` against the signs of the accumulated direction (momentum), which is
    ``decay`` times itself and the new one, divided by its mean absolute value. ``directions`` maps
    a step's number and its points to the gradient there of what is lowered.
    """
    accumulated = torch.zeros_like(points)
    for step in range(steps):
        accumulated = decay * accumulated + of_size_one(directions(step, points))
        points = (points - step_size * accumulated.sign()).clamp(*bounds)
    return points


def of_size_one(direction: Tensor) -> Tensor:
    """``direction`` [batch,3,height,width] over the mean absolute value of each image's own; 0
    stays 0."""
    return direction / direction.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)


def uniform_offsets(images: Tensor, key: RandomKey, *purpose: int | str) -> Tensor:
    """Uniform draws from -1 to 1 like ``images``, named by seed, image id and ``purpose``."""
    drawn = [generator(key.seed, id, *purpose).uniform(-1, 1, images.shape[1:]) for id in key.ids]
    return torch.stack([torch.from_numpy(each) for each in drawn]).to(images)
