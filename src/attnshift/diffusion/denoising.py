"""The guided denoising steps that an attack differentiates: from a latent at the start level to one at the last."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.ddim import Ladder, ddim_step
from attnshift.types import AttentionMaps, Site

__all__ = ["Trajectory", "denoise", "guided_noise"]


@dataclass(frozen=True)
class Trajectory:
    """How an image is denoised: where it starts, under which text, and what keeps its clean path on course.

    start [batch,channels,rows,columns]; text and each of ``unconditional`` [batch,tokens,width]; each of ``offsets``
    like start, added after its step. ``guidance`` 1 is the conditional prediction alone.
    """

    ladder: Ladder
    start: Tensor
    text: Tensor
    unconditional: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...] | None
    guidance: float

    def rows(self, keep: Tensor) -> Trajectory:
        """The same for the images at ``keep``."""
        return replace(
            self,
            start=self.start[keep],
            text=self.text[keep],
            unconditional=tuple(each[keep] for each in self.unconditional),
            offsets=None if self.offsets is None else tuple(each[keep] for each in self.offsets),
        )


def denoise(
    backbone: Backbone,
    trajectory: Trajectory,
    latents: Tensor,
    sites: Collection[Site] = (),
    checkpointing: bool = False,
) -> tuple[Tensor, AttentionMaps]:
    """Walk ``latents`` down the whole ladder; the attention of ``sites`` is that of the conditional half.

    With ``checkpointing`` a step keeps only its input and is run again in backward; its maps are outputs of the step,
    so that their gradient survives.
    """
    order = tuple(sites)
    read: list[tuple[Tensor, ...]] = []

    def step(latents: Tensor, index: int) -> tuple[Tensor, ...]:
        noise, maps = guided_noise(backbone, trajectory, latents, index, order)
        source, target = trajectory.ladder.levels[index : index + 2]
        moved = ddim_step(latents, noise, source, target)
        if trajectory.offsets is not None:
            moved = moved + trajectory.offsets[index]
        return moved, *maps

    for index in range(len(trajectory.ladder)):
        if checkpointing and latents.requires_grad:
            latents, *maps = checkpoint(step, latents, index, use_reentrant=False)
        else:
            latents, *maps = step(latents, index)
        read.append(tuple(maps))
    return latents, {site: tuple(maps[at] for maps in read) for at, site in enumerate(order)}


def guided_noise(
    backbone: Backbone, trajectory: Trajectory, latents: Tensor, index: int, sites: tuple[Site, ...] = ()
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Noise prediction of step ``index`` under classifier-free guidance (Ho and Salimans 2022), and its maps."""
    timestep, count = trajectory.ladder.timesteps[index], len(latents)
    if trajectory.guidance == 1:
        prediction = backbone.denoise(latents, timestep, trajectory.text, sites)
        noise = prediction.noise
    else:
        text = torch.cat([trajectory.unconditional[index], trajectory.text])
        prediction = backbone.denoise(torch.cat([latents, latents]), timestep, text, sites, slice(count, 2 * count))
        unconditional, conditional = prediction.noise.chunk(2)
        noise = unconditional + trajectory.guidance * (conditional - unconditional)
    return noise, tuple(prediction.attention[site] for site in sites)
