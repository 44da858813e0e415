"""An attack within a budget of naturalness: the force that holds the images at its edge, and the
search along a line for the edit that spends it all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from attnshift.batching import batch_record, constant, per_image
from attnshift.metrics.budget import Budget
from attnshift.randomness import generator
from attnshift.recipes.schema import BudgetSection
from attnshift.types import RandomKey

__all__ = ["Holding", "budget_of", "dithered", "furthest_kept"]

_STIFFNESS = 1.0
"""Penalty coefficient rho: what one whole budget too much adds to the multiplier."""
_DOUBLINGS, _HALVINGS = 2, 8
"""Steps of the search for the strength at the edge of the budget."""


@batch_record
class Holding:
    """Multiplier of the constraint spent <= 1, one for each image, as an immutable record.

    The augmented Lagrangian of an inequality (Rony et al., "Augmented Lagrangian adversarial
    attacks", ICCV 2021, section 3, with the roles of loss and distance exchanged): the force is
    max(0, mu + rho (spent - 1)), and it is the next mu. Both gradients count with norm 1, so a
    multiplier of 1 balances them whatever the networks, the metric and its limit are.
    """

    multiplier: Tensor = per_image()
    budget: Budget = constant()

    @classmethod
    def start(cls, budget: Budget, images: Tensor) -> Holding:
        return cls(images.new_zeros(len(images)), budget)

    def step(self, images: Tensor, changed: Tensor, points: Tensor, direction: Tensor) -> tuple[Tensor, Holding]:
        """``direction`` [batch,...] with the force of the budget added, and the record after it.

        ``changed`` are the images that ``points`` [batch,...] show; the direction is a gradient at
        the points. Its norm is the unit of the force.
        """
        spent = self.budget.spent(images, changed)
        # A metric without a useful slope holds the images as their Euclidean distance would.
        rises = spent if self.budget.differentiable else (changed - images).square()
        (slope,) = torch.autograd.grad(rises.sum(), points, retain_graph=True)
        force = (self.multiplier + _STIFFNESS * (spent.detach() - 1)).clamp(min=0)
        length = _norms(direction)
        length = torch.where(length > 0, length, 1.0) / _norms(slope).clamp(min=1e-30)
        pull = (force * length).view(-1, *[1] * (slope.ndim - 1)) * slope
        return direction + pull, replace(self, multiplier=force)


def budget_of(section: BudgetSection) -> Budget | None:
    """The budget that a recipe states, or None; raises what ``Budget.of`` does."""
    return Budget.of(section.metric, section.limit) if section.given else None


def furthest_kept(
    budget: Budget, images: Tensor, start: Tensor, show: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The greatest strength [batch] whose 8-bit file keeps the limit, and what it shows.

    ``show`` maps strengths [batch] to edits [batch,3,height,width] of ``images``: at 1 the edit as
    it was found, at 0 ``start``. Bisection finds the edge of the budget up to 4 times the found
    edit, to 1/256 of what it searches. Where even ``start`` breaks the limit, the images themselves
    come back.
    """
    low, high = images.new_zeros(len(images)), images.new_ones(len(images))
    found = torch.where(_over(budget.keeps(images, start)), start, images)
    for step in range(_DOUBLINGS + _HALVINGS):
        growing = step < _DOUBLINGS
        trial = high if growing else (low + high) / 2
        shown = show(trial)
        kept = budget.keeps(images, shown)
        low, found = torch.where(kept, trial, low), torch.where(_over(kept), shown, found)
        high = torch.where(kept, 2 * high if growing else high, high if growing else trial)
    return low, found


def dithered(images: Tensor, key: RandomKey) -> Tensor:
    """Images [batch,3,height,width] in [0,1] in steps of 1/255, up or down at random so that the
    mean stays: a radius of 2.4 levels is not one of 2."""
    drawn = [torch.from_numpy(generator(key.seed, id, "dither").random(images.shape[1:])) for id in key.ids]
    return (images * 255 + torch.stack(drawn).to(images)).floor().clamp(0, 255) / 255


def _over(values: Tensor) -> Tensor:
    """Values [batch] over pixels, [batch,1,1,1]."""
    return values.view(-1, 1, 1, 1)


def _norms(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)
