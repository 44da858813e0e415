"""Inversion: from an image's latent up to the noise level at which the attack edits it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.noise_schedule import NoiseSchedule, Pairing

__all__ = ["invert"]


@torch.no_grad()
def invert(
    backbone: Backbone,
    noise_schedule: NoiseSchedule,
    latents: Float[Tensor, "batch channels rows columns"],
    unconditional: Conditioning,
    pairing: Pairing,
    rounds: int = 0,
) -> tuple[Float[Tensor, "batch channels rows columns"], ...]:
    """Latents before each denoising step and after the last one, steps + 1 in all.

    The prediction is unconditional and evaluated at the lower latent; ``rounds`` fixed-point rounds
    then evaluate it again at the upper one (Pan et al., "Effective real image editing with
    accelerated iterative diffusion inversion", ICCV 2023).

    ``aligned`` walks exactly the pairs of levels that denoising walks, so that with a constant
    prediction the round trip is exact. ``compat`` is the published attack's own pairing: each step
    starts one level higher than its denoising partner ends, the first latent stands at the level
    above the first one, and the difference is left to the reconstruction.
    """
    stored = [latents]
    for index in reversed(range(len(noise_schedule))):
        if pairing == "aligned":
            source, target = noise_schedule.levels[index + 1], noise_schedule.levels[index]
        else:
            source, target = (
                noise_schedule.levels[index],
                noise_schedule.levels[index - 1] if index else noise_schedule.above,
            )
        lower = stored[0]
        output = backbone.denoise(lower, noise_schedule.timesteps[index], unconditional).output
        upper = noise_schedule.path.step(lower, output, source, target)
        for _ in range(rounds):
            output = backbone.denoise(upper, noise_schedule.timesteps[index], unconditional).output
            upper = noise_schedule.path.step(lower, output, source, target)
        stored.insert(0, upper)
    return tuple(stored)
