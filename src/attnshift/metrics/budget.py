"""A stated naturalness, image by image: the share of it that an edit spends, and the search along a
line for the edit that spends it all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.batching import spread
from attnshift.data.images import quantise
from attnshift.errors import RecipeError
from attnshift.metrics import METRICS, budget_metric
from attnshift.metrics.metrics import Metric
from attnshift.registry import look_up

__all__ = ["Budget", "furthest_kept"]

_SIDE = 256
"""Side of the image on which a metric is tried; every metric takes it."""
_TRIALS, _FURTHEST = 7, 4.0
"""Most trials of the search for the edge of the budget, and the greatest strength among them."""
_AIM, _ENOUGH = 0.995, 0.99
"""Share of the budget that trials aim at, and the one with which an image's search ends."""


@dataclass(frozen=True)
class Budget:
    """A metric of two images, and the value that an edit keeps at least, or at most.

    ``best`` is the metric's value for equal images. ``differentiable``: its gradient says how to
    spend less. Budgets ``also`` hold as well: what is spent is the greatest share of any.
    """

    name: str
    metric: Metric
    limit: float
    best: float
    differentiable: bool
    also: tuple[Budget, ...] = ()

    @classmethod
    def of(cls, name: str, limit: float, also: Mapping[str, float] = {}) -> Budget:
        """The budget ``limit`` of the metric called ``name`` in ``METRICS``, and those of ``also``.

        A ``RecipeError`` for a limit that an unchanged image breaks already, or a metric that is
        infinite there; ``UnavailableError`` for a metric that cannot be taken here.
        """
        facts, metric = budget_metric(name), look_up(METRICS, name)
        grey = torch.full((1, 3, _SIDE, _SIDE), 0.5)
        best = round(float(metric(grey, grey)), 3)
        if not math.isfinite(best):
            raise RecipeError(f"budget.metric is {name}, which is {best} for equal images; take l2 in its place")
        if not (limit < best if facts.higher_is_better else limit > best):
            side = "below" if facts.higher_is_better else "above"
            raise RecipeError(
                f"budget.limit is {limit:g}, and {name} is {best:g} for equal images; give a number {side} that"
            )
        rest = tuple(cls.of(*each) for each in also.items())
        return cls(name, metric, limit, best, all(each.differentiable for each in (facts, *rest)), rest)

    def spent(self, images: Tensor, changed: Tensor) -> Tensor:
        """Share [batch] of the budget that ``changed`` spends: 0 for equal images, 1 at the limit.

        Both are [batch,3,height,width] in [0,1].
        """
        own = (self.metric(images, changed) - self.best) / (self.limit - self.best)
        return torch.stack([own, *(each.spent(images, changed) for each in self.also)]).max(0).values

    def spent_by_files(self, images: Tensor, changed: Tensor) -> Tensor:
        """The same share [batch] for their 8-bit files."""
        return self.spent(quantise(images), quantise(changed))

    def keeps(self, images: Tensor, changed: Tensor) -> Tensor:
        """Whether the 8-bit files of ``changed`` keep the limit, bool [batch]."""
        return self.spent_by_files(images, changed) <= 1


def furthest_kept(
    budget: Budget, images: Tensor, start: Tensor, show: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The greatest strength [batch] found whose 8-bit file keeps the limit, and what it shows.

    ``show`` maps strengths [rows], and the ``rows`` of the images that they are for, to edits
    [rows,3,height,width] of these: at 1 the edit as it was found, at 0 ``start``. The search of an
    image goes up to 4 times the found edit, and ends where 99 % of the budget are spent; ``show``
    is then asked for the others alone. Where even ``start`` breaks the limit, the images themselves
    come back.

    Between a strength that keeps the limit and one that does not, the next trial is where the line
    through the square roots of what both spend meets the limit (regula falsi, in the Illinois form:
    Dowell and Jarratt, BIT 1971). Most metrics grow with the square of a small change.
    """
    aim = _AIM**0.5

    def root(rows: Tensor | slice, shown: Tensor) -> Tensor:
        return budget.spent_by_files(images[rows], shown).clamp(min=0).sqrt()

    low, high = images.new_zeros(len(images)), images.new_full((len(images),), torch.inf)
    reached, above = root(slice(None), start), torch.full_like(low, torch.inf)
    found = torch.where(spread(reached <= 1, images), start, images)
    below, moved = reached - aim, torch.zeros_like(low)
    for _ in range(_TRIALS):
        rows = ((low == 0) | (reached < _ENOUGH**0.5)).nonzero()[:, 0]
        if not len(rows):
            break
        grown = torch.where(low > 0, low * (aim / reached.clamp(min=0.01)).clamp(1.02, _FURTHEST), 1.0)
        between = low + (high - low) * (below / (below - above)).clamp(0.05, 0.95)
        trial = torch.where(high.isinf(), grown.clamp(max=_FURTHEST), between)[rows]
        shown = show(trial, rows)
        spent = root(rows, shown)
        kept, before = spent <= 1, moved[rows]
        # An end that stays for a second time counts half: the next trial comes nearer to it.
        below[rows] = torch.where(kept, spent - aim, torch.where(before < 0, below[rows] / 2, below[rows]))
        above[rows] = torch.where(kept, torch.where(before > 0, above[rows] / 2, above[rows]), spent - aim)
        inside, outside = rows[kept], rows[~kept]
        reached[inside], found[inside], low[inside] = spent[kept], shown[kept], trial[kept]
        high[outside] = trial[~kept]
        moved[rows] = kept.to(low) * 2 - 1
    return low, found
