"""The deterministic DDIM step between two noise levels, and the noise levels of an attack.

Song, Meng and Ermon, "Denoising diffusion implicit models" (ICLR 2021), eq. 12 with sigma = 0. A
level is named by its cumulative alpha: latents = sqrt(alpha) * clean + sqrt(1 - alpha) * noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy
from jaxtyping import Float
from torch import Tensor

__all__ = ["NoiseSchedule", "Pairing", "ddim_step", "linear_levels"]

Pairing = Literal["aligned", "compat"]


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
class NoiseSchedule:
    """The last K denoising steps of a schedule, in the order of denoising (highest noise first).

    Step k evaluates the denoiser at ``timesteps[k]`` and goes from alpha ``levels[k]`` to
    ``levels[k + 1]``.
    """

    timesteps: tuple[int, ...]
    levels: tuple[float, ...]
    above: float
    """Alpha one schedule step above the first level; where ``compat`` inversion ends."""

    def __len__(self) -> int:
        return len(self.timesteps)
