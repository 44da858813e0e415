"""Stable Diffusion 1.x and 2.x (and anything saved in their layout) through diffusers."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from attnshift.diffusion import Precision
from attnshift.diffusion.backbone import Loader
from attnshift.diffusion.checks import check_parts, check_unet
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.latent_model import in_float
from attnshift.diffusion.layout import Layout
from attnshift.diffusion.loading import load_family
from attnshift.diffusion.texts import Encoders, TextStream
from attnshift.diffusion.unet import UNetModel, walked_by

__all__ = ["STABLE_DIFFUSION", "StableDiffusion", "layout_of", "load_stable_diffusion"]


class StableDiffusion(UNetModel):
    """A Stable Diffusion of diffusers as a ``Backbone``. Its noise schedule is walked as the
    published attack does: leading spacing, one step offset, eta 0. Where its own scheduler is a
    trailing one, as SD-Turbo's is, the levels are spaced as that says."""

    def __init__(self, pipeline: StableDiffusionPipeline, name: str):
        self.text_encoder: CLIPTextModel = pipeline.text_encoder
        self.tokenizer: CLIPTokenizer = pipeline.tokenizer
        vae, unet, text = pipeline.vae, pipeline.unet, self.text_encoder.config
        check_parts(name, unet.config, vae.config, text, self.tokenizer)
        self.length = min(self.tokenizer.model_max_length, text.max_position_embeddings)
        scheduler = self._walked(pipeline.scheduler, name)
        encoders = Encoders({"text_encoder": self.text_encoder}, None)
        super().__init__(name, vae, unet, scheduler, encoders, [TextStream("clip", self.tokenizer, self.length)])
        encoders.to(self.device)

    def _walked(self, scheduler: Any, name: str) -> DDIMScheduler | LCMScheduler:
        """The levels of ``scheduler``, the one of the pipeline ``name``, as they are walked."""
        published: dict[str, Any] = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
        trailing = scheduler.config.get("timestep_spacing") == "trailing"
        return walked_by(DDIMScheduler, scheduler, name, **({} if trailing else published))

    def to(self, device: torch.device | str) -> Self:
        super().to(device)
        # It is small, and stays.
        self.encoders.to(self.device)
        return self

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        states = self._encode_text(prompts).last_hidden_state
        assert states is not None
        return Conditioning(in_float(states))

    def _pooled(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        pooled = self._encode_text(prompts).pooler_output
        assert pooled is not None
        return pooled

    def _encode_text(self, prompts: Sequence[str]) -> BaseModelOutputWithPooling:
        return self.text_encoder(self._texts[0].tokens(prompts).to(self.device))


def load_stable_diffusion(source: str, precision: Precision = "float32", name: str = "") -> StableDiffusion:
    """Load a folder in diffusers' layout or a name of the Hugging Face hub; it is called ``name``,
    or as its source.

    Safetensors only, in whatever precision they were saved; code that comes with a pipeline is
    never run.
    """
    name = name or source
    return load_family(source, precision, name, _LAYOUT, lambda parts, _: StableDiffusion(parts, name))


def layout_of(family: str, pipeline: Any, told: bool = False) -> Layout:
    """Layout of a ``family`` whose U-Net reads one CLIP; its pipelines are made by ``pipeline``, a
    class of diffusers. ``told`` says whether the denoiser wants its guidance."""
    return Layout(
        family,
        pipeline,
        {"unet": ("UNet2DConditionModel",), "text_encoder": ("CLIPTextModel",)},
        {"tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast")},
        check=lambda folder: check_unet(folder / "unet" / "config.json", family, told),
        left_out={
            "safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False,
        },
    )  # fmt: skip


_LAYOUT = layout_of("Stable Diffusion 1.x and 2.x", StableDiffusionPipeline)

STABLE_DIFFUSION = Loader(("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"), load_stable_diffusion)
