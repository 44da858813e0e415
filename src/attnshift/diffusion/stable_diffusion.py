"""Stable Diffusion 1.x and 2.x (and anything saved in their layout) through diffusers."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from attnshift.diffusion import Precision
from attnshift.diffusion.attention import attention_sites, record_attention
from attnshift.diffusion.autoencoder import Autoencoder, decode, encode, facts, precision_of
from attnshift.diffusion.backbone import Loader, Prediction, Read
from attnshift.diffusion.checks import (
    check_betas,
    check_folder,
    check_levels,
    check_parts,
    network_class,
)
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.hub import download
from attnshift.diffusion.names import check_pipeline_source, is_hub_name, split_variant
from attnshift.diffusion.networks import load_checked, silence
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.errors import ModelError
from attnshift.fingerprint import fingerprint
from attnshift.types import Site, TokenSpan
from attnshift.untrusted import UNUSABLE, reason

__all__ = ["STABLE_DIFFUSION", "StableDiffusion", "load_stable_diffusion"]


class StableDiffusion:
    """A diffusers pipeline as a ``Backbone``. Epsilon and v-prediction models; their weights are
    constants.

    Weights may be bf16: each network is handed its own precision and hands back the precision that
    came, so that steps, losses and the latents' gradient stay in fp32.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, name: str):
        self.name = name
        self.vae: Autoencoder = pipeline.vae
        self.unet: UNet2DConditionModel = pipeline.unet
        self.text_encoder: CLIPTextModel = pipeline.text_encoder
        self.tokenizer: CLIPTokenizer = pipeline.tokenizer
        check_parts(name, self.unet.config, self.vae.config, self.text_encoder.config, self.tokenizer)
        for module in (self.vae, self.unet, self.text_encoder):
            # Convolutions are faster in this order of the memory: on one thread of a CPU by a tenth
            # to a quarter, in bf16 several times.
            module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scheduler = _ddim(pipeline, name)
        self.prediction_type = str(self.scheduler.config["prediction_type"])
        self.device = self.unet.device
        self.pixels_per_latent = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self.suggested_size = int(self.unet.config["sample_size"]) * self.pixels_per_latent
        self._summaries: dict[str, Tensor] = {}
        self.length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    def to(self, device: torch.device | str) -> StableDiffusion:
        for module in (self.vae, self.unet, self.text_encoder):
            module.to(device)  # type: ignore[call-overload]
        self.device = self.unet.device
        return self

    def fingerprint(self) -> str:
        return fingerprint(
            {"vae": self.vae, "unet": self.unet, "text_encoder": self.text_encoder},
            (
                self.scheduler.config["prediction_type"],
                self.scheduler.alphas_cumprod.tolist(),
                *facts(self.vae),
                sorted(self.tokenizer.get_vocab().items()),
            ),
        )

    @property
    def has_tiny_autoencoder(self) -> bool:
        """True if the autoencoder is a tiny one, which gives one latent for each image."""
        return isinstance(self.vae, AutoencoderTiny)

    def check_size(self, side: int) -> None:
        # The latents may have odd sides at any level (28, 14, 7, 4 at 224 px): the denoiser pads
        # and crops by itself.
        unit = self.pixels_per_latent
        if side % unit or side <= 0:
            below = side // unit * unit
            near = " or ".join(str(value) for value in (below, below + unit) if value > 0) or str(unit)
            raise ModelError(f"{self.name}: images of {side} px do not fit the model; use `size` {near}")

    def encode(
        self,
        images: Float[Tensor, "batch 3 height width"],
        noise: Float[Tensor, "batch channels rows columns"] | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        return encode(self.vae, images, noise)

    def decode(
        self, latents: Float[Tensor, "batch channels rows columns"], checkpointing: bool = False
    ) -> Float[Tensor, "batch 3 height width"]:
        return decode(self.vae, latents, checkpointing)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        states = self._encode_text(prompts).last_hidden_state
        assert states is not None
        return Conditioning(states.to(torch.promote_types(states.dtype, torch.float32)))

    @torch.no_grad()
    def summarise(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        new = sorted(set(prompts) - self._summaries.keys())
        for at in range(0, len(new), 64):
            pooled = self._encode_text(new[at : at + 64]).pooler_output
            assert pooled is not None
            unit = torch.nn.functional.normalize(pooled.float(), dim=1)
            self._summaries.update(zip(new[at : at + 64], unit, strict=True))
        return torch.stack([self._summaries[prompt] for prompt in prompts])

    def _encode_text(self, prompts: Sequence[str]) -> BaseModelOutputWithPooling:
        encoded = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(encoded.input_ids.to(self.device))

    def locate(self, prompt: str, phrase: str, start: int | None = None) -> TokenSpan:
        found = list(re.finditer(f"(?={re.escape(phrase)})", prompt, re.IGNORECASE)) if phrase.strip() else []
        places = [each.start() for each in found if start is None or each.start() == start]
        if not places:
            raise ModelError(f"the phrase {phrase!r} does not stand in the prompt {prompt!r}")
        start = places[-1]
        end = start + len(phrase)
        offsets = self.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
        span = tuple(at for at, (first, last) in enumerate(offsets) if last > first and first < end and last > start)
        if not span or span[-1] >= self.length - 1:
            raise ModelError(
                f"{prompt!r} takes {len(offsets)} tokens and {self.name} reads {self.length}: {phrase!r} would be cut; "
                "give a shorter class_name or prompt.template"
            )
        return span

    def noise_schedule(self, schedule_steps: int, denoising_steps: int) -> NoiseSchedule:
        alphas = self.scheduler.alphas_cumprod.double()
        if schedule_steps > len(alphas):
            raise ModelError(
                f"diffusion.schedule_steps is {schedule_steps}, and {self.name} was trained with {len(alphas)} steps"
            )
        self.scheduler.set_timesteps(schedule_steps)
        timesteps = [int(value) for value in self.scheduler.timesteps]
        # The offset of one puts the first of all training steps beyond the last level.
        most = sum(timestep < len(alphas) for timestep in timesteps)
        if not 0 < denoising_steps <= most:
            raise ModelError(
                f"diffusion.denoising_steps is {denoising_steps}; it must lie between 1 and "
                f"{most} for a schedule of {schedule_steps} steps"
            )
        used = timesteps[-denoising_steps:]
        levels = [float(alphas[timestep]) for timestep in used] + [float(self.scheduler.final_alpha_cumprod)]
        # Above the last training step there is no further level.
        above = min(used[0] + len(alphas) // schedule_steps, len(alphas) - 1)
        return NoiseSchedule(tuple(used), tuple(levels), float(alphas[above]))

    def latent_side(self, side: int) -> int:
        return side // self.pixels_per_latent

    def sites(self, side: int) -> tuple[Site, ...]:
        return attention_sites(self.unet, self.latent_side(side))

    def projections(self) -> dict[str, torch.nn.Linear]:
        """The linear layers of all attention modules, by name: queries, keys, values and output."""
        names = (
            f"{site.layer}.{part}"
            for site in self.sites(self.suggested_size)
            for part in ("to_q", "to_k", "to_v", "to_out.0")
        )
        return {name: cast(torch.nn.Linear, self.unet.get_submodule(name)) for name in names}

    def denoise(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timestep: float,
        text: Conditioning,
        reads: Sequence[Read] = (),
    ) -> Prediction:
        with record_attention(self.unet, reads) as attention:
            inner, dtype = precision_of(self.unet), latents.dtype
            states = text.states.to(inner)
            output = self.unet(latents.to(inner), timestep, encoder_hidden_states=states).sample.to(dtype)
        if self.scheduler.config["prediction_type"] == "v_prediction":
            # Salimans and Ho, "Progressive distillation" (ICLR 2022), appendix D:
            # noise = sqrt(a) v + sqrt(1 - a) z.
            alpha = float(self.scheduler.alphas_cumprod[int(timestep)])
            output = alpha**0.5 * output + (1 - alpha) ** 0.5 * latents
        return Prediction(output, attention)


def _ddim(pipeline: StableDiffusionPipeline, name: str) -> DDIMScheduler:
    """The model's own noise schedule, walked as the published attack does: leading spacing, one
    step offset, eta 0."""
    config = dict(pipeline.scheduler.config)
    check_betas(f"{name}: its scheduler", config)
    scheduler = DDIMScheduler.from_config(
        config, timestep_spacing="leading", steps_offset=1, clip_sample=False, set_alpha_to_one=False
    )
    if scheduler.config["prediction_type"] not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{name}: prediction type {scheduler.config['prediction_type']!r} is not supported; "
            "epsilon and v_prediction are"
        )
    check_levels(scheduler.alphas_cumprod, name)
    return scheduler


def load_stable_diffusion(source: str, precision: Precision = "float32", name: str = "") -> StableDiffusion:
    """Load a folder in diffusers' layout or a name of the Hugging Face hub; it is called ``name``,
    or as its source.

    Safetensors only, in whatever precision they were saved; code that comes with a pipeline is
    never run.
    """
    silence()
    name = name or source
    try:
        place, variant = split_variant(source)
        folder = _folder(place, variant)
        networks = {
            part: _network(folder, part, variant, getattr(torch, precision))
            for part, variant in check_folder(folder, variant).items()
        }
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, **networks, safety_checker=None, feature_extractor=None, image_encoder=None,
            requires_safety_checker=False, local_files_only=True, trust_remote_code=False,
        )  # fmt: skip
        return StableDiffusion(pipeline, name)
    except UNUSABLE as error:
        raise ModelError(f"cannot load the pipeline {name}: {reason(error)}") from error


STABLE_DIFFUSION = Loader(("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"), load_stable_diffusion)


def _folder(source: str, variant: str | None) -> Path:
    """Return where the pipeline lies, once what a name of the hub stands for has been fetched."""
    check_pipeline_source(source)
    folder = Path(source)
    if is_hub_name(source) and not folder.exists():
        return download(source, variant)
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{source} is not a diffusers pipeline: it holds no model_index.json")
    return folder


def _network(folder: Path, part: str, variant: str | None, dtype: torch.dtype) -> torch.nn.Module:
    """The network in ``folder / part``."""
    return load_checked(folder / part, network_class(folder / part, part), variant, dtype)
