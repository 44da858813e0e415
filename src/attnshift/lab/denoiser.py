"""Training of the lab's own Stable Diffusion: autoencoder, text encoder and denoiser.

Files have the standard layout.
"""

# The annotations of diffusers and transformers are narrower than what they accept and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from attnshift.diffusion.attention import attention_sites, record_attention
from attnshift.diffusion.backbone import Read
from attnshift.lab.random_pipeline import build_text_encoder, stable_diffusion_scheduler
from attnshift.lab.render import SIZE
from attnshift.lab.splits import Split
from attnshift.lab.tokenizer import MAX_LENGTH, build_tokenizer
from attnshift.lab.training import Report, Stage, TrainingBatch, optimise
from attnshift.sizes import Size, size_of

__all__ = ["AUTOENCODER", "DENOISER", "train_pipeline"]

AUTOENCODER = Stage("autoencoder", steps=2300, batch=16, learning_rate=2e-3, weight_decay=0.0, ema=0.998)
DENOISER = Stage("denoiser", steps=2600, batch=32, learning_rate=1e-3, ema=0.998)

_LATENT_CHANNELS = 8
_TEXT_WIDTH = 96
_EMPTY_CAPTIONS = 0.1
_ATTENTION_WEIGHT = 0.02


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
    latents = _latents(autoencoder, split, work / "latents.safetensors", report)
    scale = 1 / float(latents.std())
    autoencoder.register_to_config(scaling_factor=scale)
    parts = nn.ModuleDict({"text": text_encoder, "unet": denoiser})
    conditions = _Conditions(split, build_tokenizer())
    scheduler = stable_diffusion_scheduler()
    optimise(
        DENOISER,
        parts,
        lambda network, batch: _denoiser_loss(network, latents * scale, conditions, scheduler, batch),
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


@torch.no_grad()
def _latents(autoencoder: AutoencoderKL, split: Split, path: Path, report: Report) -> Tensor:
    """Posterior means of all images and of their mirror images, [2,n,8,16,16]."""
    if not path.exists():
        report("encoding the training images")
        encoded = [
            torch.stack([autoencoder.encode(view).latent_dist.mean for view in (images, images.flip(3))])
            for images in (part / 127.5 - 1 for part in split.images.split(100))
        ]
        save_file({"latents": torch.cat(encoded, 1)}, path)
    return load_file(path)["latents"]


class _Conditions:
    """Captions as token ids, positions of their class phrases, and masks of the objects."""

    def __init__(self, split: Split, tokenizer: CLIPTokenizer):
        captions = [scene.captions for scene in split.scenes]
        padded: dict[str, Any] = {"padding": "max_length", "max_length": MAX_LENGTH, "return_tensors": "pt"}
        self.choices = len(captions[0])
        flat = [caption for several in captions for caption in several]
        names = [scene.class_name for scene in split.scenes for _ in range(self.choices)]
        encoded = tokenizer(flat, return_offsets_mapping=True, **padded)
        starts = torch.tensor([caption.index(name) for caption, name in zip(flat, names, strict=True)])
        ends = starts + torch.tensor([len(name) for name in names])
        offsets = encoded["offset_mapping"]
        inside = (offsets[..., 0] >= starts[:, None]) & (offsets[..., 1] <= ends[:, None])
        self.phrase = inside & (offsets[..., 1] > offsets[..., 0])
        self.ids = encoded["input_ids"]
        self.empty = tokenizer([""], **padded)["input_ids"]
        self.masks = split.masks

    def draw(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Token ids and phrase positions, both [batch,tokens]. An empty caption has no phrase."""
        rows = batch.indices * self.choices + torch.from_numpy(
            batch.draw.integers(self.choices, size=len(batch.indices))
        )
        empty = batch.uniform(len(rows), 1) < _EMPTY_CAPTIONS
        return torch.where(empty, self.empty, self.ids[rows]), self.phrase[rows] & ~empty


def _denoiser_loss(
    network: nn.Module, latents: Tensor, conditions: _Conditions, scheduler: DDIMScheduler, batch: TrainingBatch
) -> Tensor:
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
    count = len(batch.indices)
    mirrored = batch.uniform(count) < 0.5
    clean = latents[mirrored.long(), batch.indices]
    masks = conditions.masks[batch.indices].float() / 255
    masks = torch.where(mirrored[:, None, None, None], masks.flip(3), masks)
    ids, phrase = conditions.draw(batch)
    timesteps = (1000 * batch.uniform(count) ** 1.5).long()
    noise = batch.normal(*clean.shape)
    noisy = scheduler.add_noise(clean, noise, timesteps)  # type: ignore[arg-type]
    sites = [site.mapped() for site in attention_sites(unet, size_of(clean)) if site.kind == "cross"]
    with record_attention(unet, [Read(site) for site in sites]) as maps:
        text = text_encoder(ids)[0]
        predicted = unet(noisy, timesteps, text).sample
    signal = scheduler.alphas_cumprod[timesteps] * phrase.any(1)
    pull = torch.stack([_outside(maps[site], phrase, masks, site.grid) for site in sites]).mean(0)
    return (predicted - noise).square().mean() + _ATTENTION_WEIGHT * (pull * signal).mean()


def _outside(probabilities: Tensor, phrase: Tensor, masks: Tensor, grid: Size) -> Tensor:
    """Negative logarithm of the share of the phrase's attention inside the mask, [batch]."""
    mass = (probabilities.mean(1) * phrase[:, None, :]).sum(2)
    inside = torch.nn.functional.adaptive_avg_pool2d(masks, grid).flatten(1)
    share = (mass * inside).sum(1) / (mass.sum(1) + 1e-6)
    return -torch.log(share + 1e-3)
