"""Training of the lab's own Stable Diffusion: autoencoder, text encoder and denoiser.

Files have the standard layout.
"""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from attnshift.diffusion.attention import attention_sites, record_attention
from attnshift.diffusion.backbone import Read
from attnshift.lab.examples import ATTENTION_WEIGHT, Examples, encoded, outside
from attnshift.lab.random_pipeline import build_text_encoder, stable_diffusion_scheduler
from attnshift.lab.render import SIZE
from attnshift.lab.splits import Split
from attnshift.lab.tokenizer import build_tokenizer
from attnshift.lab.training import Report, Stage, TrainingBatch, optimise
from attnshift.sizes import size_of

__all__ = ["AUTOENCODER", "DENOISER", "train_pipeline"]

AUTOENCODER = Stage("autoencoder", steps=2300, batch=16, learning_rate=2e-3, weight_decay=0.0, ema=0.998)
DENOISER = Stage("denoiser", steps=2600, batch=32, learning_rate=1e-3, ema=0.998)

_LATENT_CHANNELS = 8
_TEXT_WIDTH = 96


def train_pipeline(split: Split, seed: int, work: Path, out: Path, report: Report) -> None:
    """Train all parts on ``split`` and save them to ``out``.

    ``StableDiffusionPipeline`` loads the folder; its weights are fp16 safetensors.
    """
    torch.manual_seed(seed)
    autoencoder = _autoencoder()
    text_encoder, denoiser = build_text_encoder(build_tokenizer(), _TEXT_WIDTH, layers=2, heads=4), _denoiser()
    optimise(
        AUTOENCODER,
        autoencoder,
        lambda network, batch: _autoencoder_loss(network, split, batch),
        len(split.images),
        seed,
        work / "autoencoder.pt",
        report,
    )
    autoencoder.requires_grad_(False)
    latents = encoded(autoencoder, split, work / "latents.safetensors", report)
    scale = 1 / float(latents.std())
    autoencoder.register_to_config(scaling_factor=scale)
    parts = nn.ModuleDict({"text": text_encoder, "unet": denoiser})
    examples = Examples(split, build_tokenizer(), latents * scale)
    scheduler = stable_diffusion_scheduler()
    optimise(
        DENOISER,
        parts,
        lambda network, batch: _denoiser_loss(network, examples, scheduler, batch),
        len(split.images),
        seed,
        work / "denoiser.pt",
        report,
    )
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        unet=denoiser,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True)
    report(f"saved the pipeline in {out}")


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=SIZE,
        block_out_channels=(24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=_LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def _denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        block_out_channels=(32, 64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=(1, 2, 4),
        norm_num_groups=16,
    )


def _pixels(split: Split, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Images in [-1,1] [batch,3,64,64] and masks in [0,1], mirrored for half of the batch."""
    mirrored = batch.uniform(len(batch.indices), 1, 1, 1) < 0.5
    images, masks = split.images[batch.indices] / 127.5 - 1, split.masks[batch.indices] / 255
    return torch.where(mirrored, images.flip(3), images), torch.where(mirrored, masks.flip(3), masks)


def _autoencoder_loss(network: nn.Module, split: Split, batch: TrainingBatch) -> Tensor:
    """Squared and absolute error of the round trip, and a KL divergence with a small weight."""
    assert isinstance(network, AutoencoderKL)
    images, _ = _pixels(split, batch)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = network.encode(images).latent_dist
        noise = batch.normal(*posterior.mean.shape)
        decoded = network.decode(posterior.mean + posterior.std * noise).sample
    error = decoded.float() - images
    return error.square().mean() + 0.1 * error.abs().mean() + 1e-6 * posterior.kl().float().mean()


def _denoiser_loss(network: nn.Module, examples: Examples, scheduler: DDIMScheduler, batch: TrainingBatch) -> Tensor:
    """Noise prediction error, plus a term for the class phrase's attention inside the mask.

    Timesteps of low noise, at which an attack edits, are drawn more often (density falls with the
    cube root).

    Large models learn to attend to the object that a word names. A model of this size has little
    need to. The term is the negative logarithm of the share of the phrase's attention inside the
    mask. Its weight is the share of signal left at the timestep, so it is zero if the noise hides
    the object.
    """
    assert isinstance(network, nn.ModuleDict)
    unet, text_encoder = network["unet"], network["text"]
    assert isinstance(unet, UNet2DConditionModel)
    drawn = examples.draw(batch)
    timesteps = (1000 * batch.uniform(len(drawn.clean)) ** 1.5).long()
    noise = batch.normal(*drawn.clean.shape)
    noisy = scheduler.add_noise(drawn.clean, noise, timesteps)  # type: ignore[arg-type]
    sites = [site.mapped() for site in attention_sites(unet, size_of(drawn.clean)) if site.kind == "cross"]
    with record_attention(unet, [Read(site) for site in sites]) as maps:
        text = text_encoder(drawn.ids)[0]
        predicted = unet(noisy, timesteps, text).sample
    signal = scheduler.alphas_cumprod[timesteps] * drawn.phrase.any(1)
    pull = torch.stack([outside(maps[site], drawn, site.grid) for site in sites]).mean(0)
    return (predicted - noise).square().mean() + ATTENTION_WEIGHT * (pull * signal).mean()
