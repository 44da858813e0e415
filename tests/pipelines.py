"""The pipelines of the tests."""

# pyright: reportArgumentType=false

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline

from attnshift.lab.random_pipeline import random_pipeline as tiny_pipeline

__all__ = ["taesd_pipeline", "tiny_autoencoder", "tiny_pipeline"]


def tiny_autoencoder(latent_channels: int = 4, levels: int = 4) -> AutoencoderTiny:
    """An ``AutoencoderTiny`` of diffusers with random weights, of width 8."""
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
    parts = tiny_pipeline(size=size).components
    return StableDiffusionPipeline(**{**parts, "vae": tiny_autoencoder()}, requires_safety_checker=False)
