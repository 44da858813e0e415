"""Stable Diffusion 3 and 3.5 through diffusers, with T5 or without."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from diffusers import StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Tensor, nn

from attnshift.diffusion import Precision
from attnshift.diffusion.autoencoder import precision_of
from attnshift.diffusion.backbone import Loader
from attnshift.diffusion.checks import check_latents, check_tokenizer, check_width
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.flow_model import FlowModel
from attnshift.diffusion.latent_model import in_float
from attnshift.diffusion.layout import Layout
from attnshift.diffusion.loading import Reload, load_family
from attnshift.diffusion.texts import Encoders, TextStream
from attnshift.errors import ModelError
from attnshift.sizes import Sides, Size

__all__ = ["SD3", "T5_LENGTH", "StableDiffusion3", "load_sd3"]

T5_LENGTH = 256
"""Tokens of T5 that the pipeline reads, unless it is told otherwise."""


class StableDiffusion3(FlowModel):
    """A Stable Diffusion 3 or 3.5 of diffusers as a ``Backbone``.

    The image attends to two streams of text: the penultimate states of both CLIPs side by side, and
    T5's behind them. Without T5 there are zeros in its place, as in the pipeline.
    """

    spaced_by_pipeline = False

    def __init__(self, pipeline: StableDiffusion3Pipeline, name: str, reload: Reload | None = None):
        vae, transformer = pipeline.vae, pipeline.transformer
        networks = {"text_encoder": pipeline.text_encoder, "text_encoder_2": pipeline.text_encoder_2}
        tokenizers = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
        self._has_t5 = pipeline.text_encoder_3 is not None
        if self._has_t5:
            networks["text_encoder_3"], tokenizers["text_encoder_3"] = pipeline.text_encoder_3, pipeline.tokenizer_3
        config = transformer.config
        check_latents(name, config, vae.config)
        for part, network in networks.items():
            check_tokenizer(name, network.config, tokenizers[part])
        pooled = networks["text_encoder"].config.projection_dim + networks["text_encoder_2"].config.projection_dim
        check_width(name, "pooled_projection_dim", config, pooled)
        if self._has_t5:
            check_width(name, "joint_attention_dim", config, networks["text_encoder_3"].config.d_model)
        self._second = pipeline.tokenizer_2
        clip = TextStream("clip", pipeline.tokenizer, int(pipeline.tokenizer.model_max_length))
        streams = [clip]
        if self._has_t5:
            length = min(T5_LENGTH, int(pipeline.tokenizer_3.model_max_length))
            streams.append(TextStream("t5", pipeline.tokenizer_3, length, clip.length))
        super().__init__(name, vae, transformer, pipeline.scheduler, Encoders(networks, reload), streams)
        self.suggested_size = int(config["sample_size"]) * self.pixels_per_latent

    def check_size(self, size: Sides) -> None:
        super().check_size(size)
        largest, size = int(self.transformer.config["pos_embed_max_size"]) * self.unit, Size.of(size)
        if max(size) > largest:
            raise ModelError(f"{self.name}: images of {size} px do not fit the model; use `size` {largest} or less")

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Conditioning:
        encoders, clip = self.encoders.to(self.device), self._texts[0]
        made = [
            encoders[part](clip.tokens(prompts, tokenizer).to(self.device), output_hidden_states=True)
            for part, tokenizer in (("text_encoder", None), ("text_encoder_2", self._second))
        ]
        states = torch.cat([each.hidden_states[-2] for each in made], -1)
        width = int(self.transformer.config["joint_attention_dim"])
        states = torch.nn.functional.pad(states, (0, width - states.shape[-1]))
        if self._has_t5:
            words = encoders["text_encoder_3"](self._texts[1].tokens(prompts).to(self.device))[0]
        else:
            words = states.new_zeros(len(states), T5_LENGTH, width)
        pooled = torch.cat([each.text_embeds for each in made], -1)
        return Conditioning(in_float(torch.cat([states, words.to(states)], 1)), in_float(pooled))

    def _pooled(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        pooled = self.embed(prompts).pooled
        assert pooled is not None
        return pooled

    def _blocks(self) -> Iterator[tuple[str, nn.Module]]:
        for depth, block in enumerate(self.transformer.transformer_blocks):
            yield f"transformer_blocks.{depth}", block

    def _velocity(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timesteps: Float[Tensor, "batch"],
        text: Conditioning,
    ) -> Float[Tensor, "batch channels rows columns"]:
        assert text.pooled is not None
        inner = precision_of(self.transformer)
        return self.transformer(
            latents,
            timestep=timesteps,
            encoder_hidden_states=text.states.to(inner),
            pooled_projections=text.pooled.to(inner),
        ).sample


def load_sd3(source: str, precision: Precision = "float32", name: str = "") -> StableDiffusion3:
    """Load a folder in diffusers' layout or a name of the Hugging Face hub, as
    ``load_stable_diffusion`` does."""
    name = name or source
    return load_family(source, precision, name, _LAYOUT, lambda parts, reload: StableDiffusion3(parts, name, reload))


_LAYOUT = Layout(
    "Stable Diffusion 3 and 3.5",
    StableDiffusion3Pipeline,
    {
        "transformer": ("SD3Transformer2DModel",),
        "text_encoder": ("CLIPTextModelWithProjection",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "text_encoder_3": ("T5EncoderModel",),
    },
    {
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_3": ("T5TokenizerFast", "T5Tokenizer"),
    },
    optional=("text_encoder_3", "tokenizer_3"),
    flow=True,
    left_out={"image_encoder": None, "feature_extractor": None},
)

SD3 = Loader(("StableDiffusion3Pipeline",), load_sd3, flow=True)
