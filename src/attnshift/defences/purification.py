"""Diffusion purification (Nie et al., "DiffPure", ICML 2022), on latents of the run's pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy
import torch
from pydantic import Field
from torch import Tensor

from attnshift.defences.content import generators
from attnshift.defences.defended import Classify
from attnshift.defences.straight_through import straight_through
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.randomness import generator
from attnshift.registry import STRICT
from attnshift.sizes import Size, size_of
from attnshift.types import RandomKey

__all__ = ["AttackedPurifier", "Purification", "Purifier"]


@dataclass(frozen=True)
class Purification:
    """Purification: encode the image, add noise, denoise, decode.

    ``strength`` is the share of the diffusion process up to which noise is added. It is rounded up
    to a whole number of the ``schedule_steps`` steps; at 0 only the autoencoder acts. Denoising is
    conditional on ``prompt``, without guidance. The authors work on pixels and solve the reverse
    stochastic equation (strength 0.15 on ImageNet). Here the steps are DDIM's, and only the added
    noise is random.

    With a ``gradient`` it stands before a surrogate, for attacks that know the defence: the logits
    are their mean over ``draws`` of the noise (expectation over transformation). ``exact`` goes
    back through all of it, ``bpda`` counts it as the identity (Athalye et al., ICML 2018, section
    4). Without one no gradient passes, and it is for judges.
    """

    __pydantic_config__ = STRICT
    strength: Annotated[float, Field(ge=0, le=0.9)] = 0.15
    schedule_steps: Annotated[int, Field(ge=10, le=1000)] = 50
    prompt: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    gradient: Literal["none", "bpda", "exact"] = "none"
    draws: Annotated[int, Field(ge=1, le=100)] = 1

    def __post_init__(self) -> None:
        if self.draws > 1 and self.gradient == "none":
            raise ValueError("draws average a gradient; set gradient to 'bpda' or 'exact', or leave draws out")

    @property
    def differentiable(self) -> bool:
        return self.gradient != "none"

    def on(self, backbone: Backbone) -> Purifier | AttackedPurifier:
        return AttackedPurifier(self, backbone) if self.differentiable else Purifier(self, backbone)


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
        draws = generators(images, self.options.seed, "purification")
        return _purified(self.options, self.backbone, images, draws)


@dataclass(frozen=True)
class AttackedPurifier:
    """The same as part of a surrogate, which an attack sees.

    Its draws are none of a judge's. They are named by (seed of the run, image id, iteration,
    "purification", view, number of the draw).
    """

    differentiable: ClassVar[bool] = True
    keyed: ClassVar[bool] = True
    options: Purification
    backbone: Backbone

    def __str__(self) -> str:
        return str(self.options)

    def poll(self, classify: Classify, images: Tensor, key: RandomKey | None = None) -> Tensor:
        """Mean logits [batch,classes] of the purified images. Raises ``ModelError`` for a size that
        the backbone cannot take."""
        return torch.stack([classify(self._seen(images, key, draw)) for draw in range(self.options.draws)]).mean(0)

    def _seen(self, images: Tensor, key: RandomKey | None, draw: int) -> Tensor:
        if key is None:
            draws = generators(images, self.options.seed, "purification", "attacked", str(draw))
        else:
            purpose = (key.iteration, "purification", key.view, draw)
            draws = [generator(key.seed, id, *purpose) for id in key.ids]
        if self.options.gradient == "exact":
            return _purified(self.options, self.backbone, images, draws)
        with torch.no_grad():
            exact = _purified(self.options, self.backbone, images, draws)
        return straight_through(exact, images)


def _purified(
    options: Purification, backbone: Backbone, images: Tensor, draws: Sequence[numpy.random.Generator]
) -> Tensor:
    backbone.check_size(size_of(images))
    shown = images.to(backbone.device, torch.promote_types(images.dtype, torch.float32))
    latents = _denoised(options, backbone, backbone.encode(shown), size_of(images), draws)
    return backbone.decode(latents, checkpointing=latents.requires_grad).clamp(0, 1).to(images)


def _denoised(
    options: Purification, backbone: Backbone, latents: Tensor, size: Size, draws: Sequence[numpy.random.Generator]
) -> Tensor:
    # Rounding comes first: 0.07 of 100 steps is 7.000000000000001 in floating point and must
    # not become 8.
    steps = math.ceil(round(options.strength * options.schedule_steps, 6))
    if steps == 0:
        return latents
    noise_schedule = backbone.noise_schedule(options.schedule_steps, steps, size)
    drawn = numpy.stack([draw.standard_normal(latents.shape[1:]) for draw in draws])
    noise = torch.from_numpy(drawn).to(latents)
    start = noise_schedule.path.noised(latents, noise, noise_schedule.levels[0])
    text = backbone.embed([options.prompt] * len(latents))
    trajectory = Trajectory(noise_schedule, start, text, (text,) * steps, None, 1.0)
    return denoise(backbone, trajectory, start, checkpointing=True)[0]
