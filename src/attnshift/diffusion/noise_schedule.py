"""Noise levels of an attack, and the step between two of them.

Every model that is walked here mixes latents and noise along a path of its own, and every step is
linear: z' = a z + b prediction. What a level is called, and what a denoiser predicts at it, is the
path's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion.ddim import DDIM

__all__ = ["NoisePath", "NoiseSchedule", "Pairing"]

Pairing = Literal["aligned", "compat"]


class NoisePath(Protocol):
    """The path from latents to noise: a level's name, and what is predicted there."""

    clean: ClassVar[float]
    """The level without noise."""

    def alpha(self, level: float) -> float:
        """Share of the signal in the variance at ``level``, in [0,1]."""
        ...

    def step(
        self, latents: Float[Tensor, "*shape"], prediction: Float[Tensor, "*shape"], source: float, target: float
    ) -> Float[Tensor, "*shape"]:
        """Move ``latents`` from the level ``source`` to ``target``, up or down, along
        ``prediction``; linear in both."""
        ...

    def noised(
        self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], level: float
    ) -> Float[Tensor, "*shape"]:
        """Clean ``latents`` with ``noise`` at ``level``."""
        ...

    def prediction(self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What is to be predicted at any level for clean ``latents`` with ``noise``."""
        ...

    def noised_again(
        self, latents: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], source: float, target: float
    ) -> Float[Tensor, "*shape"]:
        """``latents`` at the level ``target`` with as much fresh ``noise`` as brings them back to
        ``source``."""
        ...

    def per_score(self, level: float) -> float:
        """By how much the prediction falls at ``level`` where the score rises by 1."""
        ...


@dataclass(frozen=True)
class NoiseSchedule:
    """The last K denoising steps of a schedule, in the order of denoising (highest noise first).

    Step k evaluates the denoiser at ``timesteps[k]`` and goes from the level ``levels[k]`` to
    ``levels[k + 1]`` of ``path``.
    """

    timesteps: tuple[float, ...]
    levels: tuple[float, ...]
    above: float
    """The level one schedule step above the first one; where ``compat`` inversion ends."""
    path: NoisePath = DDIM

    def __len__(self) -> int:
        return len(self.timesteps)

    def step(
        self, latents: Float[Tensor, "*shape"], prediction: Float[Tensor, "*shape"], index: int
    ) -> Float[Tensor, "*shape"]:
        """Denoising step ``index`` of ``latents``, along ``prediction``."""
        return self.path.step(latents, prediction, self.levels[index], self.levels[index + 1])

    @property
    def alphas(self) -> tuple[float, ...]:
        """Share of the signal in the variance at each level, in [0,1]."""
        return tuple(map(self.path.alpha, self.levels))
