"""The Euler step of a rectified flow between two noise levels, and its levels.

Liu, Gong and Liu, "Flow straight and fast" (ICLR 2023), eq. 1; Esser et al., "Scaling rectified
flow transformers for high-resolution image synthesis" (ICML 2024), section 2. A level is named by
its share of noise: latents = (1 - sigma) * clean + sigma * noise. The velocity, noise - clean, is
predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

__all__ = ["Flow"]


@dataclass(frozen=True)
class Flow:
    """The straight path of a rectified flow: a level is its share of noise, and the velocity is
    predicted."""

    clean: ClassVar[float] = 0.0

    def alpha(self, level: float) -> float:
        return (1 - level) ** 2 / ((1 - level) ** 2 + level**2)

    def step(
        self, latents: Float[Tensor, "*shape"], prediction: Float[Tensor, "*shape"], source: float, target: float
    ) -> Float[Tensor, "*shape"]:
        return latents + (target - source) * prediction

    def noised(
        self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], level: float
    ) -> Float[Tensor, "*shape"]:
        return (1 - level) * latents + level * noise

    def prediction(self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return noise - latents

    def noised_again(
        self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], source: float, target: float
    ) -> Float[Tensor, "*shape"]:
        kept = (1 - source) / (1 - target)
        return kept * latents + (source**2 - (kept * target) ** 2) ** 0.5 * noise

    def per_score(self, level: float) -> float:
        """0 where there is no signal: the images that a gradient could move are not in there."""
        return level / (1 - level) if level < 1 else 0.0
