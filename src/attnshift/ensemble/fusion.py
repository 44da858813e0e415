"""From the gradients of several classifiers to one direction, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from attnshift.ensemble.surrogates import Surrogates
from attnshift.tables import STRICT
from attnshift.types import Fused

__all__ = ["FusionRule", "Uniform", "combine"]


@runtime_checkable
class FusionRule(Protocol):
    """A rule receives the classifiers and not ready gradients: some rules probe trial images."""

    def __call__(self, surrogates: Surrogates, images: Tensor) -> Fused: ...


@dataclass(frozen=True)
class Uniform:
    """Every model counts the same.

    With ``normalise`` (default) each model contributes its unit direction, and the sum is scaled back to the mean
    gradient norm, so that no model drowns the others and the classification weight keeps its meaning. Without it the
    direction is the gradient of the mean loss.
    """

    __pydantic_config__ = STRICT
    normalise: bool = True

    def __call__(self, surrogates: Surrogates, images: Tensor) -> Fused:
        gradients, losses, margins = surrogates.gradients(images)
        active = gradients.flatten(2).norm(dim=2) > 0
        weights = active.float() if self.normalise else active.new_ones(active.shape).float()
        weights = weights / weights.sum(0).clamp(min=1)
        return Fused(combine(gradients, weights, self.normalise), weights, losses, margins)


def combine(gradients: Tensor, weights: Tensor, normalise: bool) -> Tensor:
    """(sum w_i g_i / |g_i|) * (sum w_i |g_i|), or sum w_i g_i; gradients [models,batch,...], weights [models,batch]."""
    shape = (*weights.shape, *[1] * (gradients.ndim - 2))
    if not normalise:
        return (weights.view(shape) * gradients).sum(0)
    norms = gradients.flatten(2).norm(dim=2)
    units = gradients / norms.clamp(min=1e-30).view(shape)
    scale = (weights * norms).sum(0).view(shape[1:])
    return (weights.view(shape) * units).sum(0) * scale
