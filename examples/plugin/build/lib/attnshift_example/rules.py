"""A fusion rule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from attnshift import STRICT, Fused, Surrogates


@dataclass(frozen=True)
class Median:
    """Coordinate-wise median of the surrogates' gradients (Yin et al., ICML 2018).

    A single surrogate that points elsewhere changes it little. Surrogates without a gradient do not count.
    """

    __pydantic_config__ = STRICT

    def __call__(self, surrogates: Surrogates, points: Tensor, state: Tensor | None = None) -> Fused:
        seen = surrogates.gradients(points)
        pulls = seen.active.view(*seen.active.shape, *[1] * (points.ndim - 1))
        direction = seen.gradients.where(pulls, float("nan")).nanmedian(0).values.nan_to_num(0.0)
        shares = seen.active / seen.active.sum(0).clamp(min=1)
        return Fused(direction, shares, seen.losses, seen.margins)
