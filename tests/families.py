"""Tiny pipelines with random weights of every family, in the layout of the real configurations and with small
vocabularies of their own."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from attnshift.diffusion.backbone import Backbone

__all__ = ["FAMILIES", "SIDE", "TOKENS", "backbone_of", "flux", "lcm", "sd3", "sdxl"]

SIDE, TOKENS = 64, 24
_LETTERS = "abcdefghijklmnopqrstuvwxyz',-"
_WORDS = ("a", "photo", "of", "on", "the", "mug", "red", "ball", "snow", "tree", "crane", "and", "white", "wooden")


def clip_tokenizer() -> Any:
    from attnshift.lab.tokenizer import build_tokenizer

    made = build_tokenizer()
    made.model_max_length = TOKENS
    return made


def t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    pieces += [(letter, -9.0) for letter in _LETTERS] + [(f"▁{word}", -4.0) for word in _WORDS]
    return T5TokenizerFast(vocab=[*pieces, ("man", -4.0)], extra_ids=0, model_max_length=TOKENS)


def clip(tokenizer: Any, width: int, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, projection_dim=width, intermediate_size=2 * width,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5(tokenizer: Any, width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=width // 2, d_ff=2 * width, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return T5EncoderModel(config)


def autoencoder(channels: int, shift: float | None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=SIDE, block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        scaling_factor=1.5, shift_factor=shift, use_quant_conv=shift is None, use_post_quant_conv=shift is None,
    )  # fmt: skip


def _seeded(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = make(*arguments, **options)
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return made


def sdxl(spacing: str = "leading", zeros: bool = True) -> Any:
    """A ``StableDiffusionXLPipeline``; cross-attention on the two coarser of its three levels."""
    return _seeded(_sdxl, spacing, zeros)


def _sdxl(spacing: str, zeros: bool) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    first, second = clip_tokenizer(), clip_tokenizer()
    second.pad_token = "!"
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8, block_out_channels=(8, 8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1,
        cross_attention_dim=24, attention_head_dim=(1, 2, 2), transformer_layers_per_block=(1, 1, 2), norm_num_groups=4,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing=spacing
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder(4, None), text_encoder=clip(first, 8, False), text_encoder_2=clip(second, 16, True),
        tokenizer=first, tokenizer_2=second, unet=unet, scheduler=scheduler, force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )  # fmt: skip


def lcm() -> Any:
    """A ``LatentConsistencyModelPipeline``: a Stable Diffusion whose denoiser is told its guidance."""
    return _seeded(_lcm)


def _lcm() -> Any:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel

    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=2, norm_num_groups=4, time_cond_proj_dim=12,
    )  # fmt: skip
    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return LatentConsistencyModelPipeline(
        vae=autoencoder(4, None), text_encoder=clip(tokenizer, 16, False), tokenizer=tokenizer, unet=unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sd3(with_t5: bool = True, medium: bool = False) -> Any:
    """A ``StableDiffusion3Pipeline``; ``medium`` normalises queries and keys and has image-only attention in its
    first block, as 3.5 medium does."""
    return _seeded(_sd3, with_t5, medium)


def _sd3(with_t5: bool, medium: bool) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, words = clip_tokenizer(), t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 8, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=16,
        pos_embed_max_size=12, dual_attention_layers=(0,) if medium else (), qk_norm="rms_norm" if medium else None,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=autoencoder(16, 0.06),
        text_encoder=clip(tokenizer, 8, True), text_encoder_2=clip(tokenizer, 8, True),
        text_encoder_3=t5(words, 32) if with_t5 else None, tokenizer=tokenizer, tokenizer_2=clip_tokenizer(),
        tokenizer_3=words if with_t5 else None,
    )  # fmt: skip


def flux(dev: bool = True) -> Any:
    """A ``FluxPipeline`` with two double blocks and two single ones."""
    return _seeded(_flux, dev)


def _flux(dev: bool) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    tokenizer, words = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, guidance_embeds=dev, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    shift: dict[str, Any] = {"shift": 3.0, "use_dynamic_shifting": True} if dev else {"shift": 1.0}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**shift), vae=autoencoder(4, 0.1),
        text_encoder=clip(tokenizer, 8, False),
        tokenizer=tokenizer, text_encoder_2=t5(words, 16), tokenizer_2=words, transformer=transformer,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], Any]] = {
    "sdxl": sdxl,
    "lcm": lcm,
    "sd3": sd3,
    "sd3 medium without t5": lambda: sd3(False, True),
    "flux dev": flux,
    "flux schnell": lambda: flux(False),
}
"""Every kind of pipeline; the first word is its backbone in ``BACKBONES``."""


@cache
def backbone_of(family: str) -> Backbone:
    """The backbone of a pipeline of ``FAMILIES``."""
    from attnshift.diffusion.flux import Flux
    from attnshift.diffusion.lcm import LatentConsistency
    from attnshift.diffusion.sd3 import StableDiffusion3
    from attnshift.diffusion.sdxl import StableDiffusionXL

    kinds: dict[str, Any] = {
        "sdxl": StableDiffusionXL, "lcm": LatentConsistency, "sd3": StableDiffusion3, "flux": Flux,
    }  # fmt: skip
    return kinds[family.split()[0]](FAMILIES[family](), family)
