"""Autoencoders of latent diffusion models: Stable Diffusion's, and the tiny ones that are distilled
from it (TAESD)."""

# The annotations of diffusers are narrower than what it accepts and returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["AUTOENCODERS", "Autoencoder", "decode", "encode", "facts", "precision_of"]

Autoencoder = AutoencoderKL | AutoencoderTiny

AUTOENCODERS: dict[str, type[Autoencoder]] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
"""Classes of diffusers by their names, as configurations state them."""


def encode(
    vae: Autoencoder,
    images: Float[Tensor, "batch 3 height width"],
    noise: Float[Tensor, "batch channels rows columns"] | None = None,
) -> Float[Tensor, "batch channels rows columns"]:
    """Latents of ``images``, scaled as the denoiser sees them.

    They are the mean of the posterior, or the sample that ``noise`` selects. A tiny autoencoder
    gives one latent for each image, whatever the noise.
    """
    encoded = vae.encode((2 * images - 1).to(precision_of(vae)))
    if isinstance(vae, AutoencoderTiny):
        latents = encoded.latents.to(images.dtype)
    else:
        mean, std = (each.to(images.dtype) for each in (encoded.latent_dist.mean, encoded.latent_dist.std))
        latents = mean if noise is None else mean + std * noise
    if _shift(vae):
        latents = latents - _shift(vae)
    return latents * vae.config["scaling_factor"]


def decode(
    vae: Autoencoder, latents: Float[Tensor, "batch channels rows columns"], checkpointing: bool = False
) -> Float[Tensor, "batch 3 height width"]:
    """Images of ``latents``, not clamped. With ``checkpointing`` each layer keeps only its
    input."""
    scaled = latents / vae.config["scaling_factor"]
    if _shift(vae):
        scaled = scaled + _shift(vae)
    with _checkpointed(vae) if checkpointing else nullcontext():
        decoded = vae.decode(scaled.to(precision_of(vae))).sample
    return decoded.to(latents.dtype) / 2 + 0.5


def facts(vae: Autoencoder) -> tuple[object, ...]:
    """All that changes what ``vae`` computes beside its weights."""
    config, moved = vae.config, (("shift", _shift(vae)),) if _shift(vae) else ()
    if isinstance(vae, AutoencoderTiny):
        return config["scaling_factor"], "AutoencoderTiny", config["act_fn"], config["upsample_fn"], *moved
    return config["scaling_factor"], *moved


def _shift(vae: Autoencoder) -> float:
    """What is taken off the latents before they are scaled; 0 in Stable Diffusion and SDXL."""
    return float(vae.config.get("shift_factor") or 0.0)


def precision_of(network: torch.nn.Module) -> torch.dtype:
    """Precision of ``network``. diffusers' own property walks through all modules at each call."""
    return next(network.parameters()).dtype


@contextmanager
def _checkpointed(vae: Autoencoder) -> Iterator[None]:
    """Each layer of the decoder keeps only its input; in backward one layer's activations are there
    at a time.

    diffusers' own checkpointing goes by blocks of several layers, and the largest takes most of
    what is left.
    """
    kinds = ResnetBlock2D | Upsample2D | AutoencoderTinyBlock
    layers = [each for each in vae.decoder.modules() if isinstance(each, kinds)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
