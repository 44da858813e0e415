"""Stable Diffusion XL, also distilled (Turbo, Lightning), through diffusers."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from jaxtyping import Float
from torch import Tensor

from attnshift.diffusion import Precision
from attnshift.diffusion.autoencoder import precision_of
from attnshift.diffusion.backbone import Loader
from attnshift.diffusion.checks import check_latents, check_tokenizer, check_unet, check_width
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.latent_model import in_float
from attnshift.diffusion.layout import Layout
from attnshift.diffusion.loading import Reload, load_family
from attnshift.diffusion.texts import Encoders, TextStream
from attnshift.diffusion.unet import UNetModel, walked_by
from attnshift.errors import ModelError

__all__ = ["SDXL", "StableDiffusionXL", "load_sdxl"]

_TIME_IDS = 6


class StableDiffusionXL(UNetModel):
    """A Stable Diffusion XL of diffusers as a ``Backbone``.

    Its states are the penultimate ones of both CLIPs side by side. Its denoiser is also told the
    second one's pooled text, and that the image has its own size and is not cropped. The empty
    prompt is zeros where the pipeline says so. Levels are spaced as the model's own scheduler says:
    trailing in distilled models.
    """

    def __init__(self, pipeline: StableDiffusionXLPipeline, name: str, reload: Reload | None = None):
        vae, unet, config = pipeline.vae, pipeline.unet, pipeline.unet.config
        networks = {"text_encoder": pipeline.text_encoder, "text_encoder_2": pipeline.text_encoder_2}
        check_latents(name, config, vae.config)
        check_tokenizer(name, networks["text_encoder"].config, pipeline.tokenizer)
        check_tokenizer(name, networks["text_encoder_2"].config, pipeline.tokenizer_2)
        check_width(name, "cross_attention_dim", config, sum(each.config.hidden_size for each in networks.values()))
        if config["addition_embed_type"] != "text_time":
            raise ModelError(
                f"{name}: addition_embed_type is {config['addition_embed_type']!r:.80}; expected 'text_time', as "
                "Stable Diffusion XL has it"
            )
        told = networks["text_encoder_2"].config.projection_dim + _TIME_IDS * config["addition_time_embed_dim"]
        check_width(name, "projection_class_embeddings_input_dim", config, told)
        self._zeros = bool(pipeline.config.get("force_zeros_for_empty_prompt", True))
        self._second = pipeline.tokenizer_2
        stream = TextStream("clip", pipeline.tokenizer, int(pipeline.tokenizer.model_max_length))
        scheduler = walked_by(DDIMScheduler, pipeline.scheduler, name)
        super().__init__(name, vae, unet, scheduler, Encoders(networks, reload), [stream])

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Conditioning:
        encoders, clip = self.encoders.to(self.device), self._texts[0]
        first, second = (
            encoders[part](clip.tokens(prompts, tokenizer).to(self.device), output_hidden_states=True)
            for part, tokenizer in (("text_encoder", None), ("text_encoder_2", self._second))
        )
        states = in_float(torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1))
        told = Conditioning(states, in_float(second.text_embeds))
        if not self._zeros:
            return told
        real = states.new_tensor([float(bool(prompt)) for prompt in prompts])
        assert told.pooled is not None
        return replace(told, states=states * real[:, None, None], pooled=told.pooled * real[:, None])

    def _pooled(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        encoder = self.encoders.to(self.device)["text_encoder_2"]
        return encoder(self._texts[0].tokens(prompts, self._second).to(self.device)).text_embeds

    def _further(self, latents: Float[Tensor, "batch channels rows columns"], text: Conditioning) -> dict[str, Any]:
        assert text.pooled is not None
        rows, columns = (side * self.pixels_per_latent for side in latents.shape[2:])
        ids = latents.new_tensor([rows, columns, 0, 0, rows, columns]).expand(len(latents), -1)
        inner = precision_of(self.unet)
        return {"added_cond_kwargs": {"text_embeds": text.pooled.to(inner), "time_ids": ids.to(inner)}}


def load_sdxl(source: str, precision: Precision = "float32") -> StableDiffusionXL:
    """Load a folder in diffusers' layout or a name of the Hugging Face hub, as
    ``load_stable_diffusion`` does."""
    return load_family(
        source, precision, source, _LAYOUT, lambda parts, reload: StableDiffusionXL(parts, source, reload)
    )


def _check(folder: Path) -> None:
    check_unet(folder / "unet" / "config.json", _FAMILY)


_FAMILY = "Stable Diffusion XL, Turbo and Lightning"
_LAYOUT = Layout(
    _FAMILY,
    StableDiffusionXLPipeline,
    {
        "unet": ("UNet2DConditionModel",),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
    },
    {
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
    },
    check=_check,
    left_out={"image_encoder": None, "feature_extractor": None, "add_watermarker": False},
)

SDXL = Loader(("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"), load_sdxl)
