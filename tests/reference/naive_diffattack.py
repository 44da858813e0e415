"""The published baseline written down plainly, to hold the preset ``diffattack`` against.

Chen et al., "Diffusion models for imperceptible and transferable adversarial attack" (TPAMI 2024), as
``spec/algorithm.md`` (sections 1 and 3) describes it. One image at a time, everything recomputed in every iteration,
every attention matrix kept, diffusers' own scheduler for the denoising steps. It shares no code with the engine but
the draw of the posterior sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnshift.randomness import normal

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from diffusers.models.attention_processor import Attention

SCHEDULE_STEPS = 20
DENOISING_STEPS = 5
GUIDANCE = 2.5
CLASSIFICATION_WEIGHT, VARIANCE_WEIGHT, SELF_WEIGHT = 10.0, 10_000.0, 100.0


@dataclass(frozen=True)
class Network:
    """A bare classifier and how its input is made: ``size`` (height, width), channel ``mean`` and ``std``."""

    module: nn.Module
    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Iterate:
    """What one iteration saw at ``latent``, before its update: weighted losses and the gradient of their sum."""

    latent: Tensor
    losses: dict[str, float]
    gradient: Tensor


@dataclass(frozen=True)
class Preparation:
    """``text`` [1,tokens,width] and its ``words``; the ``embeddings`` of "" as tuned, one per step; where z starts."""

    text: Tensor
    words: slice
    embeddings: list[Tensor]
    start: Tensor


@dataclass(frozen=True)
class Result:
    """All iterates before their updates, and ``latent``, z after the last update."""

    preparation: Preparation
    iterates: list[Iterate]
    latent: Tensor


@dataclass(frozen=True)
class Kept:
    """One attention matrix, [batch,heads,queries,keys], and where it was computed."""

    layer: str
    cross: bool
    matrix: Tensor


def naive_diffattack(
    pipeline: StableDiffusionPipeline,
    network: Network,
    image: Tensor,
    label: int,
    class_name: str,
    iterations: int,
    draw: tuple[int, str],
) -> Result:
    """Attack ``image`` [3,side,side] in [0,1]; ``draw`` is (run seed, image id)."""
    preparation = prepare(pipeline, image, class_name, draw)
    latent = preparation.start.clone().requires_grad_()
    optimiser = torch.optim.AdamW([latent], lr=1e-2)
    iterates = []
    for _ in range(iterations):
        seen = look(pipeline, network, preparation, latent.detach(), label)
        iterates.append(seen)
        latent.grad = seen.gradient
        optimiser.step()
    return Result(preparation, iterates, latent.detach())


def prepare(pipeline: StableDiffusionPipeline, image: Tensor, class_name: str, draw: tuple[int, str]) -> Preparation:
    """Encode, invert and tune."""
    pipeline.scheduler.set_timesteps(SCHEDULE_STEPS)
    text, empty = embed(pipeline, class_name), embed(pipeline, "")
    inverted = _invert(pipeline, _encode(pipeline, image[None], draw), empty)
    embeddings = _tune(pipeline, inverted, text, empty)
    return Preparation(text, find_words(pipeline, class_name), embeddings, inverted[-1])


def look(
    pipeline: StableDiffusionPipeline, network: Network, preparation: Preparation, latent: Tensor, label: int
) -> Iterate:
    """All losses at ``latent`` [1,channels,rows,columns] and the gradient of their sum, the clean branch included."""
    latent = latent.clone().requires_grad_()
    image, kept = _run_both(pipeline, preparation, latent)
    losses = {
        "classification": -CLASSIFICATION_WEIGHT * _cross_entropy(network, image, label),
        "variance": VARIANCE_WEIGHT * _variance(kept, preparation.words, latent.shape[-1]),
        "self_attention": SELF_WEIGHT * _self_distance(kept),
    }
    (gradient,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), latent)
    return Iterate(latent.detach(), {name: value.item() for name, value in losses.items()}, gradient)


@torch.no_grad()
def show(pipeline: StableDiffusionPipeline, preparation: Preparation, latent: Tensor) -> Tensor:
    """The image [3,side,side] in [0,1] that ``latent`` [1,channels,rows,columns] ends at."""
    return _run_both(pipeline, preparation, latent)[0][0]


def find_words(pipeline: StableDiffusionPipeline, class_name: str) -> slice:
    """The tokens of a prompt that is nothing but the class name: all but the first and the last."""
    return slice(1, len(pipeline.tokenizer.encode(class_name)) - 1)


@torch.no_grad()
def embed(pipeline: StableDiffusionPipeline, prompt: str) -> Tensor:
    tokenizer = pipeline.tokenizer
    length = tokenizer.model_max_length
    encoded = tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return pipeline.text_encoder(encoded.input_ids.to(pipeline.unet.device)).last_hidden_state


@torch.no_grad()
def _encode(pipeline: StableDiffusionPipeline, image: Tensor, draw: tuple[int, str]) -> Tensor:
    posterior = pipeline.vae.encode(image * 2 - 1).latent_dist
    noise = normal(tuple(posterior.mean.shape[1:]), *draw, "encoding").to(image)
    return (posterior.mean + posterior.std * noise) * pipeline.vae.config.scaling_factor


@torch.no_grad()
def _invert(pipeline: StableDiffusionPipeline, latent: Tensor, empty: Tensor) -> list[Tensor]:
    """Treat the image's latent as noised to t = 1 and walk up 1 -> 51 -> ... -> 251, each step as if at its own t."""
    alphas = pipeline.scheduler.alphas_cumprod
    rising = [int(t) for t in reversed(pipeline.scheduler.timesteps)]
    inverted = [latent]
    for here, above in pairwise(rising[: DENOISING_STEPS + 1]):
        latent = inverted[-1]
        output = pipeline.unet(latent, here, encoder_hidden_states=empty).sample
        noise = _as_noise(pipeline, output, latent, here)
        clean = (latent - (1 - alphas[here]).sqrt() * noise) / alphas[here].sqrt()
        inverted.append(alphas[above].sqrt() * clean + (1 - alphas[above]).sqrt() * noise)
    return inverted


def _as_noise(pipeline: StableDiffusionPipeline, output: Tensor, latent: Tensor, timestep: int) -> Tensor:
    if pipeline.scheduler.config.prediction_type == "epsilon":
        return output
    alpha = pipeline.scheduler.alphas_cumprod[timestep]
    # v = sqrt(a) noise - sqrt(1 - a) clean and latent = sqrt(a) clean + sqrt(1 - a) noise, solved for the noise.
    return alpha.sqrt() * output + (1 - alpha).sqrt() * latent


def _tune(pipeline: StableDiffusionPipeline, inverted: list[Tensor], text: Tensor, empty: Tensor) -> list[Tensor]:
    """Null-text tuning: step k starts where the one before ended and aims at the inversion latent one level down.

    AdamW's moments and step count also carry over from step to step.
    """
    latent, embedding, embeddings = inverted[-1], empty.clone().requires_grad_(), []
    optimiser = torch.optim.AdamW([embedding], lr=1e-1)
    for index, timestep in enumerate(_timesteps(pipeline)):
        for _ in range(10 + 2 * index):
            moved = _guided_step(pipeline, latent, timestep, embedding, text)
            optimiser.zero_grad()
            nn.functional.mse_loss(moved, inverted[-2 - index]).backward()
            optimiser.step()
        embeddings.append(embedding.detach().clone())
        with torch.no_grad():
            latent = _guided_step(pipeline, latent, timestep, embedding, text)
    return embeddings


def _timesteps(pipeline: StableDiffusionPipeline) -> list[int]:
    return [int(t) for t in pipeline.scheduler.timesteps[-DENOISING_STEPS:]]


def _guided_step(
    pipeline: StableDiffusionPipeline, latents: Tensor, timestep: int, empty: Tensor, text: Tensor
) -> Tensor:
    """One DDIM step under guidance; the batch is all of the unconditional half, then all of the conditional one."""
    states = torch.cat([empty] * len(latents) + [text] * len(latents))
    output = pipeline.unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=states).sample
    without, told = output.chunk(2)
    return pipeline.scheduler.step(without + GUIDANCE * (told - without), timestep, latents).prev_sample


def _run_both(
    pipeline: StableDiffusionPipeline, preparation: Preparation, latent: Tensor
) -> tuple[Tensor, list[list[Kept]]]:
    """Denoise the clean and the attacked latent side by side: the attacked image, and per step all matrices.

    A matrix' batch is unconditional clean, unconditional attacked, conditional clean, conditional attacked.
    """
    latents, steps = torch.cat([preparation.start, latent]), []
    for timestep, empty in zip(_timesteps(pipeline), preparation.embeddings, strict=True):
        with _keep_everything(pipeline) as kept:
            latents = _guided_step(pipeline, latents, timestep, empty, preparation.text)
        steps.append(kept)
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return (decoded[1:] / 2 + 0.5).clamp(0, 1), steps


@contextmanager
def _keep_everything(pipeline: StableDiffusionPipeline) -> Iterator[list[Kept]]:
    kept: list[Kept] = []
    before = dict(pipeline.unet.attn_processors)
    pipeline.unet.set_attn_processor({name: _Keeper(name, kept) for name in before})
    try:
        yield kept
    finally:
        pipeline.unet.set_attn_processor(before)


class _Keeper:
    """Attention processor that computes the whole probability matrix and keeps it."""

    def __init__(self, layer: str, kept: list[Kept]):
        self.layer, self.kept = layer, kept

    def __call__(
        self, attention: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        cross = encoder_hidden_states is not None
        context = encoder_hidden_states if cross else hidden_states
        queries = attention.head_to_batch_dim(attention.to_q(hidden_states))
        keys = attention.head_to_batch_dim(attention.to_k(context))
        values = attention.head_to_batch_dim(attention.to_v(context))
        matrix = attention.get_attention_scores(queries, keys)
        self.kept.append(Kept(self.layer, cross, matrix.unflatten(0, (len(hidden_states), attention.heads))))
        mixed = attention.batch_to_head_dim(torch.bmm(matrix, values))
        return attention.to_out[1](attention.to_out[0](mixed))


def _cross_entropy(network: Network, images: Tensor, label: int) -> Tensor:
    if tuple(images.shape[-2:]) != tuple(network.size):
        images = nn.functional.interpolate(images, network.size, mode=network.interpolation, antialias=True)
    mean, std = (torch.tensor(values).to(images).reshape(1, 3, 1, 1) for values in (network.mean, network.std))
    logits = network.module((images - mean) / std)
    return logits.logsumexp(1)[0] - logits[0, label]


def _variance(steps: list[list[Kept]], words: slice, side: int) -> Tensor:
    """Unbiased variance of the words' mean map over all heads, sites at down and up, and steps.

    Sites are those of a quarter of the latents' ``side``: of the images' over 32, as published, where f = 8.
    """
    positions = (side // 4) ** 2
    maps = [
        each.matrix[3]
        for kept in steps
        for each in kept
        if each.cross and each.layer.startswith(("down_blocks", "up_blocks")) and each.matrix.shape[2] == positions
    ]
    chosen = torch.cat(maps).mean(0)[:, words]
    return (chosen - chosen.mean()).square().sum() / (chosen.numel() - 1)


def _self_distance(steps: list[list[Kept]]) -> Tensor:
    """Mean square difference between the conditional attacked and clean matrix, summed over all sites and steps."""
    selves = [each.matrix for kept in steps for each in kept if not each.cross]
    distances = [nn.functional.mse_loss(matrix[3], matrix[2]) for matrix in selves]
    return torch.stack(distances).sum()
