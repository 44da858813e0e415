"""Latent consistency models: a Stable Diffusion 1.x distilled to a few steps, through diffusers."""

# The annotations of diffusers are narrower than what it accepts and returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion import Precision
from attnshift.diffusion.autoencoder import precision_of
from attnshift.diffusion.backbone import Loader
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.loading import load_family
from attnshift.diffusion.stable_diffusion import StableDiffusion, layout_of
from attnshift.diffusion.unet import walked_by
from attnshift.errors import ModelError

__all__ = ["LCM", "LatentConsistency", "load_lcm"]

_GUIDANCE = 8.5
"""Guidance that the denoiser is told, the pipeline's default."""


class LatentConsistency(StableDiffusion):
    """A latent consistency model of diffusers as a ``Backbone`` (Luo et al., "Latent consistency
    models", arXiv 2310.04378).

    Guidance is distilled into the weights: the denoiser is told 8.5, and there is no negative
    prompt. A schedule has some of the levels that it was distilled at, as its own scheduler picks
    them, and is walked by DDIM where that scheduler adds fresh noise. The share of the noisy
    latents in its answer (section 4.1, c_skip) is below 1e-5 at all of these levels and left out.
    """

    guided = False

    def __init__(self, pipeline: LatentConsistencyModelPipeline, name: str):
        width = int(pipeline.unet.config["time_cond_proj_dim"])
        told = pipeline.get_guidance_scale_embedding(torch.tensor([_GUIDANCE - 1]), width)
        super().__init__(pipeline, name)
        self._told: Float[Tensor, "1 width"] = told

    def _walked(self, scheduler: Any, name: str) -> LCMScheduler:
        made = walked_by(LCMScheduler, scheduler, name)
        levels, trained = made.config["original_inference_steps"], made.config["num_train_timesteps"]
        if type(levels) is not int or not 1 <= levels <= trained:
            raise ModelError(
                f"{name}: its scheduler's original_inference_steps is {levels!r:.80}; expected a whole number from 1 "
                f"to {trained}"
            )
        return made

    @property
    def _most_steps(self) -> int:
        return int(self.scheduler.config["original_inference_steps"])

    def _further(self, latents: Float[Tensor, "batch channels rows columns"], text: Conditioning) -> dict[str, Any]:
        told = self._told.to(latents.device, precision_of(self.unet))
        return {"timestep_cond": told.expand(len(latents), -1)}


def load_lcm(source: str, precision: Precision = "float32") -> LatentConsistency:
    """Load a folder in diffusers' layout or a name of the Hugging Face hub, as
    ``load_stable_diffusion`` does."""
    return load_family(source, precision, source, _LAYOUT, lambda parts, _: LatentConsistency(parts, source))


_LAYOUT = layout_of("latent consistency models of Stable Diffusion 1.x", LatentConsistencyModelPipeline, told=True)

LCM = Loader(("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"), load_lcm, guided=False)
