"""Latent diffusion models whose denoiser is a U-Net with cross-attention, on DDIM's path."""

# The annotations of diffusers are narrower than what it accepts and returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion.attention import attention_sites, record_attention
from attnshift.diffusion.autoencoder import Autoencoder, facts, precision_of
from attnshift.diffusion.backbone import Prediction, Read
from attnshift.diffusion.checks import check_betas, check_levels
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.latent_model import LatentModel
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.diffusion.texts import Encoders, TextStream
from attnshift.errors import ModelError
from attnshift.fingerprint import fingerprint
from attnshift.sizes import Sides
from attnshift.types import Site

__all__ = ["UNetModel", "walked_by"]

_Walk = TypeVar("_Walk", DDIMScheduler, LCMScheduler)


class UNetModel(LatentModel):
    """Epsilon and v-prediction models; what they predict is handed on as noise."""

    def __init__(
        self,
        name: str,
        vae: Autoencoder,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler | LCMScheduler,
        encoders: Encoders,
        streams: Sequence[TextStream],
    ):
        super().__init__(name, vae, unet, encoders, streams)
        self.unet, self.scheduler = unet, scheduler
        self.prediction_type = str(scheduler.config["prediction_type"])
        self._alphas: list[float] = scheduler.alphas_cumprod.tolist()
        self.suggested_size = int(unet.config["sample_size"]) * self.pixels_per_latent

    def fingerprint(self) -> str:
        return fingerprint(
            {"vae": self.vae, "unet": self.unet} | dict(self.encoders.all()),
            (
                self.scheduler.config["prediction_type"],
                self.scheduler.alphas_cumprod.tolist(),
                *facts(self.vae),
                *self._vocabularies(),
            ),
        )

    def noise_schedule(self, schedule_steps: int, denoising_steps: int, size: Sides = 0) -> NoiseSchedule:
        alphas = self.scheduler.alphas_cumprod.double()
        self._check_trained(schedule_steps, self._most_steps)
        self.scheduler.set_timesteps(schedule_steps)
        timesteps = [int(value) for value in self.scheduler.timesteps]
        # The offset of one puts the first of all training steps beyond the last level.
        most = sum(timestep < len(alphas) for timestep in timesteps)
        self._check_walked(schedule_steps, denoising_steps, most)
        used = timesteps[-denoising_steps:]
        levels = [float(alphas[timestep]) for timestep in used] + [float(self.scheduler.final_alpha_cumprod)]
        # Above the last training step there is no further level.
        above = min(used[0] + len(alphas) // schedule_steps, len(alphas) - 1)
        return NoiseSchedule(tuple(used), tuple(levels), float(alphas[above]))

    def sites(self, size: Sides) -> tuple[Site, ...]:
        return attention_sites(self.unet, self.latent_size(size))

    def denoise(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timestep: float,
        text: Conditioning,
        reads: Sequence[Read] = (),
    ) -> Prediction:
        with record_attention(self.unet, reads) as attention:
            inner, dtype = precision_of(self.unet), latents.dtype
            states, further = text.states.to(inner), self._further(latents, text)
            output = self.unet(latents.to(inner), int(timestep), encoder_hidden_states=states, **further).sample
        output = output.to(dtype)
        if self.prediction_type == "v_prediction":
            # Salimans and Ho, "Progressive distillation" (ICLR 2022), appendix D:
            # noise = sqrt(a) v + sqrt(1 - a) z.
            alpha = self._alphas[int(timestep)]
            output = alpha**0.5 * output + (1 - alpha) ** 0.5 * latents
        return Prediction(output, attention)

    @property
    def _most_steps(self) -> int:
        """Levels that a schedule may have: those of training."""
        return len(self.scheduler.alphas_cumprod)

    def _further(self, latents: Float[Tensor, "batch channels rows columns"], text: Conditioning) -> dict[str, Any]:
        """Arguments of the denoiser beside latents, noise level and states."""
        return {}


def walked_by(walk: type[_Walk], scheduler: Any, name: str, **changes: Any) -> _Walk:
    """The noise levels of ``scheduler``, the one of the pipeline ``name``, spaced as ``walk``
    does; ``changes`` go before its own configuration."""
    config = dict(scheduler.config)
    check_betas(f"{name}: its scheduler", config)
    made = walk.from_config(config, clip_sample=False, **changes)
    if made.config["prediction_type"] not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{name}: prediction type {made.config['prediction_type']!r} is not supported; epsilon and v_prediction are"
        )
    check_levels(made.alphas_cumprod, name)
    return made
