"""Changes of low rank: they start at nothing, belong to one image, and make the denoiser remember it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from attnshift.batching import concatenated, select_rows
from attnshift.diffusion.low_rank import Memorising, changed, memorised
from attnshift.randomness import normal
from mirror import keys

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

OPTIONS = Memorising(rank=2, updates=3, learning_rate=0.05, weight_decay=0.01, noise_offset=0.1)


def test_the_layers_are_the_projections_of_all_attention(backbone: StableDiffusion) -> None:
    layers = backbone.projections()
    assert len(layers) == 4 * len(backbone.sites(64))
    assert {name.rpartition(".attn")[2][1:] for name in layers} == {".to_q", ".to_k", ".to_v", ".to_out.0"}


def test_a_change_starts_at_nothing_and_belongs_to_its_image(backbone: StableDiffusion) -> None:
    latents, text = normal((2, 4, 8, 8), "latents"), backbone.embed(["mug", "ball"])
    layers, plain = backbone.projections(), backbone.denoise(latents, 100, text).output
    fresh = memorised(backbone, latents, text, keys(2), replace(OPTIONS, updates=0))
    assert torch.equal(changed(backbone, fresh, layers).denoise(latents, 100, text).output, plain)
    learned = memorised(backbone, latents, text, keys(2), OPTIONS)
    own = changed(backbone, learned, layers)
    noise = own.denoise(latents, 100, text).output
    assert not torch.allclose(noise, plain, atol=1e-3)
    assert torch.equal(backbone.denoise(latents, 100, text).output, plain), "nothing stays behind"
    guided = own.denoise(torch.cat([latents] * 2), 100, concatenated([text] * 2)).output
    assert torch.allclose(guided, torch.cat([noise] * 2), atol=1e-5)
    alone = memorised(backbone, latents[:1], select_rows(text, slice(1)), select_rows(keys(2), slice(1)), OPTIONS)
    assert torch.allclose(
        changed(backbone, alone, layers).denoise(latents[:1], 100, select_rows(text, slice(1))).output,
        noise[:1],
        atol=1e-4,
    )


@pytest.mark.heavy
def test_the_denoiser_learns_the_image(backbone: StableDiffusion) -> None:
    latents, text = normal((1, 4, 8, 8), "latents"), backbone.embed(["mug"])
    learned = memorised(backbone, latents, text, keys(1), replace(OPTIONS, updates=40, rank=8))
    noise, errors = normal((1, 4, 8, 8), "unseen"), []
    for model in (backbone, changed(backbone, learned, backbone.projections())):
        predicted = model.denoise(0.5**0.5 * (latents + noise), 500, text).output
        errors.append(float((predicted - noise).square().mean()))
    assert errors[1] < 0.95 * errors[0]
