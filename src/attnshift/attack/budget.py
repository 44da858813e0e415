"""An attack within a budget of naturalness: the force that holds the images at its edge."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attnshift.batching import batch_record, constant, image_norms, per_image, spread
from attnshift.metrics.budget import Budget
from attnshift.recipes.schema import BudgetSection

__all__ = ["Holding", "budget_of"]

_STIFFNESS = 1.0
"""Penalty coefficient rho: what one whole budget too much adds to the multiplier."""


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
    spent: Tensor = per_image()
    """Share [batch] of the budget that the last images spent."""

    @classmethod
    def start(cls, budget: Budget, images: Tensor) -> Holding:
        return cls(images.new_zeros(len(images)), budget, images.new_zeros(len(images)))

    def step(self, images: Tensor, changed: Tensor, points: Tensor, direction: Tensor) -> tuple[Tensor, Holding]:
        """The force of the budget, to be added to ``direction`` [batch,...], and the record after
        it.

        ``changed`` are the images that ``points`` [batch,...] show; the direction is a gradient at
        the points. Its norm is the unit of the force.
        """
        spent = self.budget.spent(images, changed)
        # A metric without a useful slope holds the images as their Euclidean distance would.
        rises = spent if self.budget.differentiable else (changed - images).square()
        (slope,) = torch.autograd.grad(rises.sum(), points, retain_graph=True)
        force = (self.multiplier + _STIFFNESS * (spent.detach() - 1)).clamp(min=0)
        length = image_norms(direction)
        length = torch.where(length > 0, length, 1.0) / image_norms(slope).clamp(min=1e-30)
        pull = spread(force * length, slope) * slope
        return pull, replace(self, multiplier=force, spent=spent.detach())


def budget_of(section: BudgetSection) -> Budget | None:
    """The budget that a recipe states, or None; raises what ``Budget.of`` does."""
    return Budget.of(section.metric, section.limit, section.also) if section.given else None
