"""Diffusion purification (Nie et al., "DiffPure", ICML 2022), on latents of the run's pipeline."""

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
    """Purification: encode the image, add noise, denoise, decode.

    ``strength`` is the share of the diffusion process up to which noise is added. It is rounded up
    to a whole number of the ``schedule_steps`` steps; at 0 only the autoencoder acts. Denoising is
    conditional on ``prompt``, without guidance. The authors work on pixels and solve the reverse
    stochastic equation (strength 0.15 on ImageNet). Here the steps are DDIM's, and only the added
    noise is random.

    It is for judges only: no gradient passes it.
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
    """Purification with ``options``, by the diffusion model ``backbone``."""

    differentiable: ClassVar[bool] = False
    options: Purification
    backbone: Backbone

    def __str__(self) -> str:
        return str(self.options)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Purified images. Raises ``ModelError`` for a size that the backbone cannot take."""
        self.backbone.check_size(images.shape[-1])
        shown = images.float().to(self.backbone.device)
        latents = self._denoised(self.backbone.encode(shown), generators(images, self.options.seed, "purification"))
        return self.backbone.decode(latents).clamp(0, 1).to(images)

    def _denoised(self, latents: Tensor, draws: list[numpy.random.Generator]) -> Tensor:
        # Rounding comes first: 0.07 of 100 steps is 7.000000000000001 in floating point and must
        # not become 8.
        steps = math.ceil(round(self.options.strength * self.options.schedule_steps, 6))
        if steps == 0:
            return latents
        noise_schedule = self.backbone.noise_schedule(self.options.schedule_steps, steps)
        drawn = numpy.stack([draw.standard_normal(latents.shape[1:]) for draw in draws])
        noise = torch.from_numpy(drawn).to(latents)
        start = noise_schedule.path.noised(latents, noise, noise_schedule.levels[0])
        text = self.backbone.embed([self.options.prompt] * len(latents))
        return denoise(self.backbone, Trajectory(noise_schedule, start, text, (text,) * steps, None, 1.0), start)[0]
