"""FLUX.1 dev and schnell through diffusers."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from diffusers import FluxPipeline
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

__all__ = ["FLUX", "Flux", "load_flux"]

_DEV_LENGTH, _SCHNELL_LENGTH = 512, 256
"""Tokens of T5 that dev reads by the pipeline's default, and the most that schnell reads."""
_GUIDANCE = 3.5
"""Guidance that dev is told, the pipeline's default."""


class Flux(FlowModel):
    """A FLUX.1 of diffusers as a ``Backbone``.

    The image attends to T5's states; CLIP gives one vector for the whole prompt. Guidance is
    distilled into the weights, so that there is no negative prompt: dev is told a guidance of 3.5,
    and schnell none.
    """

    guided = False
    spaced_by_pipeline = True

    def __init__(self, pipeline: FluxPipeline, name: str, reload: Reload | None = None):
        vae, config = pipeline.vae, pipeline.transformer.config
        networks = {"text_encoder": pipeline.text_encoder, "text_encoder_2": pipeline.text_encoder_2}
        check_latents(name, config, vae.config, 4)
        check_tokenizer(name, networks["text_encoder"].config, pipeline.tokenizer)
        check_tokenizer(name, networks["text_encoder_2"].config, pipeline.tokenizer_2)
        check_width(name, "pooled_projection_dim", config, networks["text_encoder"].config.hidden_size)
        check_width(name, "joint_attention_dim", config, networks["text_encoder_2"].config.d_model)
        length = _DEV_LENGTH if config["guidance_embeds"] else _SCHNELL_LENGTH
        self._clip = TextStream("clip", pipeline.tokenizer, int(pipeline.tokenizer.model_max_length))
        stream = TextStream("t5", pipeline.tokenizer_2, min(length, int(pipeline.tokenizer_2.model_max_length)))
        encoders = Encoders(networks, reload)
        super().__init__(name, vae, pipeline.transformer, pipeline.scheduler, encoders, [stream])
        self.suggested_size = int(vae.config["sample_size"])

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Conditioning:
        words = self.encoders.to(self.device)["text_encoder_2"](self._texts[0].tokens(prompts).to(self.device))[0]
        return Conditioning(in_float(words), in_float(self._pooled(prompts)))

    def _pooled(self, prompts: Sequence[str]) -> Float[Tensor, "prompts width"]:
        return self.encoders.to(self.device)["text_encoder"](self._clip.tokens(prompts).to(self.device)).pooler_output

    def _blocks(self) -> Iterator[tuple[str, nn.Module]]:
        for kind in ("transformer_blocks", "single_transformer_blocks"):
            for depth, block in enumerate(getattr(self.transformer, kind)):
                yield f"{kind}.{depth}", block

    def _velocity(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        timesteps: Float[Tensor, "batch"],
        text: Conditioning,
    ) -> Float[Tensor, "batch channels rows columns"]:
        assert text.pooled is not None
        inner, (rows, columns) = precision_of(self.transformer), latents.shape[2:]
        told = latents.new_full((len(latents),), _GUIDANCE) if self.transformer.config["guidance_embeds"] else None
        packed = self.transformer(
            hidden_states=_packed(latents),
            encoder_hidden_states=text.states.to(inner),
            pooled_projections=text.pooled.to(inner),
            timestep=timesteps / 1000,
            guidance=told,
            img_ids=_places(rows // 2, columns // 2).to(latents),
            txt_ids=latents.new_zeros(text.states.shape[1], 3),
        ).sample
        return _unpacked(packed, rows, columns)


def _packed(
    latents: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch positions features"]:
    """Patches of 2 x 2 latents as positions, row by row; channels come first among the features."""
    patches = latents.unfold(2, 2, 2).unfold(3, 2, 2)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def _unpacked(
    packed: Float[Tensor, "batch positions features"], rows: int, columns: int
) -> Float[Tensor, "batch channels {rows} {columns}"]:
    patches = packed.unflatten(1, (rows // 2, columns // 2)).unflatten(3, (-1, 2, 2))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _places(rows: int, columns: int) -> Float[Tensor, "positions 3"]:
    """Row and column of each position, for its rotary embedding."""
    down, along = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(down), down, along], -1).flatten(0, 1).float()


def load_flux(source: str, precision: Precision = "float32") -> Flux:
    """Load a folder in diffusers' layout or a name of the Hugging Face hub, as
    ``load_stable_diffusion`` does."""
    return load_family(source, precision, source, _LAYOUT, lambda parts, reload: Flux(parts, source, reload))


_LAYOUT = Layout(
    "FLUX.1 dev and schnell",
    FluxPipeline,
    {
        "transformer": ("FluxTransformer2DModel",),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",),
    },
    {"tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"), "tokenizer_2": ("T5TokenizerFast", "T5Tokenizer")},
    flow=True,
    left_out={"image_encoder": None, "feature_extractor": None},
)

FLUX = Loader(("FluxPipeline",), load_flux, guided=False, flow=True)
