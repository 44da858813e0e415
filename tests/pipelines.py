"""The pipelines of the tests."""

# pyright: reportArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, StableDiffusionPipeline

__all__ = ["taesd_pipeline", "tiny_autoencoder", "tiny_pipeline"]


def tiny_pipeline(*arguments: Any, **options: Any) -> StableDiffusionPipeline:
    """What ``random_pipeline`` makes of ``arguments`` and ``options``."""
    from attnshift.lab.random_pipeline import random_pipeline

    return random_pipeline(*arguments, **options)


def tiny_autoencoder(latent_channels: int = 4, levels: int = 4) -> AutoencoderTiny:
    """An ``AutoencoderTiny`` of diffusers with random weights, of width 8."""
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderTiny(
            encoder_block_out_channels=(8,) * levels,
            decoder_block_out_channels=(8,) * levels,
            num_encoder_blocks=(1,) * levels,
            num_decoder_blocks=(1,) * levels,
            latent_channels=latent_channels,
        )


def taesd_pipeline(size: int = 64) -> StableDiffusionPipeline:
    """``tiny_pipeline`` with such an autoencoder."""
    from diffusers import StableDiffusionPipeline

    parts = tiny_pipeline(size=size).components
    return StableDiffusionPipeline(**{**parts, "vae": tiny_autoencoder()}, requires_safety_checker=False)
