"""The deterministic DDIM step between two noise levels.

Song, Meng and Ermon, "Denoising diffusion implicit models" (ICLR 2021), eq. 12 with sigma = 0. A
level is named by its cumulative alpha: latents = sqrt(alpha) * clean + sqrt(1 - alpha) * noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy
from jaxtyping import Float
from torch import Tensor

__all__ = ["DDIM", "Ddim", "ddim_step", "linear_levels"]


def ddim_step(
    latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], source: float, target: float
) -> Float[Tensor, "*shape"]:
    """Move ``latents`` from the level with alpha ``source`` to the one with ``target``, up or down,
    along ``noise``."""
    clean = (latents - (1 - source) ** 0.5 * noise) / source**0.5
    return target**0.5 * clean + (1 - target) ** 0.5 * noise


def linear_levels(steps: int) -> tuple[float, ...]:
    """Cumulative alphas of so many training steps, whose betas grow linearly from 1e-4 to 0.02.

    Ho, Jain and Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020), section 4.
    """
    return tuple(numpy.cumprod(1 - numpy.linspace(1e-4, 0.02, steps)).tolist())


@dataclass(frozen=True)
class Ddim:
    """The path of a diffusion model: a level is its cumulative alpha; the noise is predicted."""

    clean: ClassVar[float] = 1.0

    def alpha(self, level: float) -> float:
        return level

    def step(
        self, latents: Float[Tensor, "*shape"], prediction: Float[Tensor, "*shape"], source: float, target: float
    ) -> Float[Tensor, "*shape"]:
        return ddim_step(latents, prediction, source, target)

    def noised(
        self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], level: float
    ) -> Float[Tensor, "*shape"]:
        return level**0.5 * latents + (1 - level) ** 0.5 * noise

    def prediction(self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return noise

    def noised_again(
        self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], source: float, target: float
    ) -> Float[Tensor, "*shape"]:
        kept = source / target
        return kept**0.5 * latents + (1 - kept) ** 0.5 * noise

    def per_score(self, level: float) -> float:
        return (1 - level) ** 0.5


DDIM = Ddim()
"""The one path of diffusion models."""
