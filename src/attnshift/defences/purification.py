"""Diffusion purification (Nie et al., "DiffPure", ICML 2022), in the latent space of the run's own pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy
import torch
from pydantic import Field
from torch import Tensor

from attnshift.defences.content import generators
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.registry import STRICT

__all__ = ["Purification", "Purifier"]


@dataclass(frozen=True)
class Purification:
    """Encodes, adds noise up to the share ``strength`` of the diffusion process, denoises, decodes.

    ``strength`` is rounded up to whole ones of ``schedule_steps`` steps; at 0 only the autoencoder acts. Denoising is
    conditional on ``prompt`` alone, without guidance. The authors work on pixels and solve the reverse stochastic
    equation (strength 0.15 on ImageNet); here the steps are DDIM's, and all randomness lies in the noise that is added.

    Judges only: the gradient through all steps is not offered.
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = False
    strength: Annotated[float, Field(ge=0, le=0.9)] = 0.15
    schedule_steps: Annotated[int, Field(ge=10, le=1000)] = 50
    prompt: str = ""
    seed: Annotated[int, Field(ge=0)] = 0

    def on(self, backbone: Backbone) -> Purifier:
        return Purifier(self, backbone)


@dataclass(frozen=True)
class Purifier:
    """The defence that ``options`` describe, with ``backbone`` as its diffusion model."""

    differentiable: ClassVar[bool] = False
    options: Purification
    backbone: Backbone

    def __str__(self) -> str:
        return str(self.options)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Purified images; ``ModelError`` for a size that the backbone cannot take."""
        self.backbone.check_size(images.shape[-1])
        shown = images.float().to(self.backbone.device)
        latents = self._denoised(self.backbone.encode(shown), generators(images, self.options.seed, "purification"))
        return self.backbone.decode(latents).clamp(0, 1).to(images)

    def _denoised(self, latents: Tensor, draws: list[numpy.random.Generator]) -> Tensor:
        # Rounded first: 0.07 of 100 steps are 7, not the 8 that 7.000000000000001 would be.
        steps = math.ceil(round(self.options.strength * self.options.schedule_steps, 6))
        if steps == 0:
            return latents
        noise_schedule = self.backbone.noise_schedule(self.options.schedule_steps, steps)
        drawn = numpy.stack([draw.standard_normal(latents.shape[1:]) for draw in draws])
        level = noise_schedule.levels[0]
        start = level**0.5 * latents + (1 - level) ** 0.5 * torch.from_numpy(drawn).to(latents)
        text = self.backbone.embed([self.options.prompt] * len(latents))
        return denoise(self.backbone, Trajectory(noise_schedule, start, text, (text,) * steps, None, 1.0), start)[0]
