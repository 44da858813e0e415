"""A stated naturalness, image by image: the share of it that an edit spends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.data.images import quantise
from attnshift.errors import RecipeError
from attnshift.metrics import METRICS, budget_metric
from attnshift.metrics.metrics import Metric
from attnshift.registry import look_up

__all__ = ["Budget"]

_SIDE = 256
"""Side of the image on which a metric is tried; every metric takes it."""


@dataclass(frozen=True)
class Budget:
    """A metric of two images, and the value that an edit keeps at least, or at most.

    ``best`` is the metric's value for equal images. ``differentiable``: its gradient says how to
    spend less.
    """

    name: str
    metric: Metric
    limit: float
    best: float
    differentiable: bool

    @classmethod
    def of(cls, name: str, limit: float) -> Budget:
        """The budget ``limit`` of the metric called ``name`` in ``METRICS``.

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
        return cls(name, metric, limit, best, facts.differentiable)

    def spent(self, images: Tensor, changed: Tensor) -> Tensor:
        """Share [batch] of the budget that ``changed`` spends: 0 for equal images, 1 at the limit.

        Both are [batch,3,height,width] in [0,1].
        """
        return (self.metric(images, changed) - self.best) / (self.limit - self.best)

    def spent_by_files(self, images: Tensor, changed: Tensor) -> Tensor:
        """The same share [batch] for their 8-bit files."""
        return self.spent(quantise(images), quantise(changed))

    def keeps(self, images: Tensor, changed: Tensor) -> Tensor:
        """Whether the 8-bit files of ``changed`` keep the limit, bool [batch]."""
        return self.spent_by_files(images, changed) <= 1
