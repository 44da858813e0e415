"""An attack within a budget of naturalness: the force that holds the images at its edge, and the
search along a line for the edit that spends it all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from attnshift.batching import batch_record, constant, image_norms, per_image, spread
from attnshift.metrics.budget import Budget
from attnshift.randomness import generator
from attnshift.recipes.schema import BudgetSection
from attnshift.types import RandomKey

__all__ = ["Holding", "budget_of", "dithered", "furthest_kept"]

_STIFFNESS = 1.0
"""Penalty coefficient rho: what one whole budget too much adds to the multiplier."""
_TRIALS, _FURTHEST, _AIM = 7, 4.0, 0.995
"""Trials of the search for the edge of the budget, the greatest strength among them, and the share
of the budget that they aim at."""


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
    return Budget.of(section.metric, section.limit) if section.given else None


def furthest_kept(
    budget: Budget, images: Tensor, start: Tensor, show: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The greatest strength [batch] found whose 8-bit file keeps the limit, and what it shows.

    ``show`` maps strengths [batch] to edits [batch,3,height,width] of ``images``: at 1 the edit as
    it was found, at 0 ``start``. The search goes up to 4 times the found edit. Where even ``start``
    breaks the limit, the images themselves come back.

    Between a strength that keeps the limit and one that does not, the next trial is where the line
    through the square roots of what both spend meets the limit (regula falsi, in the Illinois form:
    Dowell and Jarratt, BIT 1971). Most metrics grow with the square of a small change.
    """
    aim = _AIM**0.5

    def root(shown: Tensor) -> Tensor:
        return budget.spent_by_files(images, shown).clamp(min=0).sqrt()

    low, high = images.new_zeros(len(images)), images.new_full((len(images),), torch.inf)
    reached, above = root(start), torch.full_like(low, torch.inf)
    found = torch.where(spread(reached <= 1, images), start, images)
    below, moved = reached - aim, torch.zeros_like(low)
    for _ in range(_TRIALS):
        grown = torch.where(low > 0, low * (aim / reached.clamp(min=0.01)).clamp(1.02, _FURTHEST), 1.0)
        between = low + (high - low) * (below / (below - above)).clamp(0.05, 0.95)
        trial = torch.where(high.isinf(), grown.clamp(max=_FURTHEST), between)
        shown = show(trial)
        spent = root(shown)
        kept = spent <= 1
        # An end that stays for a second time counts half: the next trial comes nearer to it.
        below = torch.where(kept, spent - aim, torch.where(moved < 0, below / 2, below))
        above = torch.where(kept, torch.where(moved > 0, above / 2, above), spent - aim)
        reached, found = torch.where(kept, spent, reached), torch.where(spread(kept, shown), shown, found)
        low, high = torch.where(kept, trial, low), torch.where(kept, high, trial)
        moved = kept.to(low) * 2 - 1
    return low, found


def dithered(images: Tensor, key: RandomKey) -> Tensor:
    """Images [batch,3,height,width] in [0,1] in steps of 1/255, up or down at random so that the
    mean stays: a radius of 2.4 levels is not one of 2."""
    drawn = [torch.from_numpy(generator(key.seed, id, "dither").random(images.shape[1:])) for id in key.ids]
    return (images * 255 + torch.stack(drawn).to(images)).floor().clamp(0, 255) / 255
