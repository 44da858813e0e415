"""Pipelines with random weights in the shape of Stable Diffusion 1 and 3, for trials without
downloads."""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from attnshift.lab.tokenizer import build_tokenizer

__all__ = [
    "build_text_encoder",
    "random_flow",
    "random_pipeline",
    "stable_diffusion_scheduler",
    "text_configuration",
]


def random_pipeline(
    prediction_type: str = "epsilon", channels: int = 8, size: int = 224, tokens: int = 24
) -> StableDiffusionPipeline:
    """Stable Diffusion pipeline with random weights, the same in every call.

    It reduces sides by a factor of 8 and has four levels, with cross-attention on the three finest.
    At 224 px the grids are 28, 14, 7 and 4 (mid). ``channels`` is the width of the finest level,
    and ``tokens`` is the length of a prompt. The tokenizer is the lab's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _random_pipeline(prediction_type, channels, size, tokens)


def _random_pipeline(prediction_type: str, channels: int, size: int, tokens: int) -> StableDiffusionPipeline:
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = tokens
    text_encoder = build_text_encoder(tokenizer, width=16, layers=1, heads=2)
    vae = _autoencoder(channels, size)
    unet = UNet2DConditionModel(
        sample_size=size // 8,
        block_out_channels=(channels, channels, 2 * channels, 2 * channels),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=stable_diffusion_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def random_flow(size: int = 64, tokens: int = 24) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3 without T5, with random weights, the same in every call.

    It reduces sides by a factor of 8. ``tokens`` is the length of a prompt; the tokenizers are the
    lab's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _random_flow(size, tokens)


def _random_flow(size: int, tokens: int) -> StableDiffusion3Pipeline:
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = tokens
    encoders = [CLIPTextModelWithProjection(text_configuration(tokenizer, 8, 2, 2)) for _ in range(2)]
    transformer = SD3Transformer2DModel(
        sample_size=size // 8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=size // 8,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(8, size),
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _autoencoder(channels: int, size: int) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=size,
        block_out_channels=(channels,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextModel:
    """Text encoder with random weights for prompts of ``tokenizer``, as long as its maximum."""
    return CLIPTextModel(text_configuration(tokenizer, width, layers, heads))


def text_configuration(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextConfig:
    """Configuration of a text encoder for prompts of ``tokenizer``, as long as its maximum."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def stable_diffusion_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """DDIM scheduler with the noise levels of Stable Diffusion 1 and 2."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
