"""The augmented Lagrangian of a budget, and the descent on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.batching import spread
from attnshift.data.images import quantise
from attnshift.ensemble.fusion import FusionRule
from attnshift.ensemble.surrogates import Surrogates
from attnshift.metrics.budget import Budget

if TYPE_CHECKING:
    from attnshift.baselines.alma import AlmaBudget

__all__ = ["Multipliers", "minimise_margins", "penalty_slope"]

_LOWEST, _HIGHEST = 1e-6, 1e12
"""Bounds of the multiplier mu."""
_WINDOW, _GROWTH, _LESS = 10, 1.2, 0.95
"""Every so many steps rho grows by this factor, unless c has fallen to this share of itself."""
_SMOOTHING = 0.9
"""Share of itself that RMSProp's mean square keeps in each step."""
_TRIALS = 16
"""Halvings in the search for the first learning rate."""


def penalty_slope(excess: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    """Slope dP/dc [batch] of the penalty at c = ``excess``, for its coefficients [batch] above 0.

    P(c) = mu c + mu rho c^2 + rho^2 c^3 / 6 for c >= 0, else mu c / (1 - rho c). At 0 the slope is
    mu from both sides. The penalty is that of Rony et al. (ICCV 2021), as baselines of this project
    use it.
    """
    over = mu + 2 * mu * rho * excess + (rho * excess).square() / 2
    return torch.where(excess >= 0, over, mu / (1 - rho * excess.clamp(max=0)).square())


@dataclass(frozen=True)
class Multipliers:
    """Coefficients mu and rho [batch] of the penalty, and what the rule of rho looks back on.

    ``over`` [batch] is true while every step of the window was over the budget; ``before`` [batch]
    is c at its start.
    """

    mu: Tensor
    rho: Tensor
    over: Tensor
    before: Tensor

    @classmethod
    def start(cls, images: Tensor) -> Multipliers:
        ones = images.new_ones(len(images))
        return cls(ones, ones, ones.bool(), torch.full_like(ones, torch.inf))

    def step(self, excess: Tensor, step: int, averaging: float) -> tuple[Tensor, Multipliers]:
        """The slope of the penalty at c = ``excess`` [batch] in step number ``step``, from 0 on,
        and the coefficients after it."""
        force = penalty_slope(excess, self.rho, self.mu)
        mu = (averaging * self.mu + (1 - averaging) * force).clamp(_LOWEST, _HIGHEST)
        over = self.over & (excess > 0)
        if (step + 1) % _WINDOW:
            return force, replace(self, mu=mu, over=over)
        stuck = over & (excess >= _LESS * self.before)
        rho = torch.where(stuck, _GROWTH * self.rho, self.rho)
        return force, Multipliers(mu, rho, torch.ones_like(over), excess)


@dataclass(frozen=True)
class _Descent:
    """RMSProp with momentum: the mean square of the gradient, and the accumulated step, both like
    the images."""

    square: Tensor
    velocity: Tensor

    @classmethod
    def start(cls, gradient: Tensor) -> _Descent:
        """The mean square starts at that of the first gradient over the image: the scale of the
        logits does not matter."""
        square = gradient.square().mean((1, 2, 3), keepdim=True).expand_as(gradient)
        return cls(square, torch.zeros_like(gradient))

    def step(self, gradient: Tensor, momentum: float) -> _Descent:
        square = _SMOOTHING * self.square + (1 - _SMOOTHING) * gradient.square()
        return _Descent(square, momentum * self.velocity + gradient / square.sqrt().clamp(min=1e-30))


@dataclass(frozen=True)
class _Rates:
    """Learning rates [batch], and the step [batch] from which on they fall."""

    first: Tensor
    since: Tensor

    def at(self, step: int, options: AlmaBudget) -> Tensor:
        left = (options.steps - 1 - self.since).clamp(min=1)
        return self.first * options.last_rate ** ((step - self.since).clamp(min=0) / left)

    def noted(self, step: int, over: Tensor) -> _Rates:
        return replace(self, since=torch.where(over, self.since.clamp(max=step), self.since))


def minimise_margins(
    options: AlmaBudget, rule: FusionRule, surrogates: Surrogates, images: Tensor, budget: Budget
) -> Tensor:
    """The image of smallest worst margin that keeps ``budget``, in steps of 1/255, for each of
    ``images`` [batch,3,height,width].

    Surrogates and budget see the rounded image; its gradient moves the one that is not rounded.
    """
    points, found, lowest = images, images, images.new_full((len(images),), torch.inf)
    multipliers, state = Multipliers.start(images), None
    descent: _Descent | None = None
    rates: _Rates | None = None
    for step in range(options.steps):
        seen = quantise(points)
        fused, (spent, slope) = rule(surrogates.at(step), seen, state), _spent_and_slope(budget, images, seen)
        worst, state = fused.margins.max(0).values, fused.state
        better = (spent <= 1) & (worst < lowest)
        found, lowest = torch.where(spread(better, seen), seen, found), torch.where(better, worst, lowest)
        force, multipliers = multipliers.step(spent - 1, step, options.averaging)
        gradient = fused.direction + spread(force, slope) * slope
        descent = (descent or _Descent.start(gradient)).step(gradient, options.momentum)
        if rates is None:
            rates = _first_rates(options, budget, images, descent.velocity)
        rates = rates.noted(step, spent > 1)
        points = (points - spread(rates.at(step, options), points) * descent.velocity).clamp(0, 1)
    return found


def _first_rates(options: AlmaBudget, budget: Budget, images: Tensor, step: Tensor) -> _Rates:
    """The largest power of 1/2 below 1 at which a ``step`` spends no more than
    ``options.first_spent``."""
    rates = images.new_ones(len(images))
    for _ in range(_TRIALS):
        spent = budget.spent(images, (images - spread(rates, step) * step).clamp(0, 1))
        rates = torch.where(spent > options.first_spent, rates / 2, rates)
    return _Rates(rates, torch.full_like(rates, options.steps))


def _spent_and_slope(budget: Budget, images: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    """The share [batch] of the budget that is spent, and its gradient by ``changed``."""
    changed = changed.detach().requires_grad_()
    with torch.enable_grad():
        spent = budget.spent(images, changed)
        (slope,) = torch.autograd.grad(spent.sum(), changed)
    return spent.detach(), slope
