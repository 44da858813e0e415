"""The contract of reconstructions, which bring the clean path back to the image."""

from __future__ import annotations

import torch

from attnshift.batching import select_rows
from attnshift.diffusion.denoising import denoise
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.reconstruction import Reconstruction
from attnshift.testing.models import pictures, small_backbone
from attnshift.testing.requirements import require, require_close, require_finite, require_shape

__all__ = ["check_reconstruction"]


def check_reconstruction(reconstruction: Reconstruction, tolerance: float = 1e-3) -> None:
    """Hold a reconstruction to its contract, on two images and a small random diffusion model.

    An image is treated alike, within ``tolerance``, whether it is alone or not.
    """
    backbone = small_backbone()
    schedule = backbone.noise_schedule(20, 5)
    with torch.no_grad():
        latents = backbone.encode(pictures(2))
        text, empty = backbone.embed(["a mug", "a red ball"]), backbone.embed(["", ""])
        stored = invert(backbone, schedule, latents, empty, "aligned")
    trajectory = reconstruction(backbone, schedule, stored, text, empty, 2.5)
    require_shape(trajectory.start, tuple(latents.shape), "the start")
    require(len(trajectory.unconditional) == len(schedule), "unconditional does not have one entry for each step")
    offsets = trajectory.offsets
    require(offsets is None or len(offsets) == len(schedule), "offsets does not have one entry for each step")
    constants = [trajectory.start, *(each.states for each in trajectory.unconditional), *(offsets or ())]
    require(not any(each.requires_grad for each in constants), "the trajectory has a graph; use .detach()")
    with torch.no_grad():
        final, _ = denoise(backbone, trajectory, trajectory.start)
    require_finite(final, "the end of the path")
    told, none = (select_rows(each, slice(1)) for each in (text, empty))
    alone = reconstruction(backbone, schedule, [each[:1] for each in stored], told, none, 2.5)
    with torch.no_grad():
        single, _ = denoise(backbone, alone, alone.start)
    require_close(single, final[:1], "an image ends elsewhere when it is alone", rtol=tolerance, atol=tolerance)
