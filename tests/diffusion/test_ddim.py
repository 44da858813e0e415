"""The DDIM step and the model's own conversions against diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnshift.diffusion.ddim import ddim_step
from later import later
from pipelines import tiny_pipeline

stable_diffusion = later("attnshift.diffusion.stable_diffusion")

LEVELS = st.floats(0.01, 0.9999)


@given(LEVELS, LEVELS)
def test_a_step_up_undoes_the_same_step_down(source: float, target: float) -> None:
    draw = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64, generator=draw)
    back = ddim_step(ddim_step(latents, noise, source, target), noise, target, source)
    torch.testing.assert_close(back, latents, rtol=1e-9, atol=1e-9)


@given(LEVELS, LEVELS)
def test_a_step_keeps_the_clean_latent_that_the_noise_implies(source: float, target: float) -> None:
    draw = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64, generator=draw)
    moved = ddim_step(source**0.5 * clean + (1 - source) ** 0.5 * noise, noise, source, target)
    torch.testing.assert_close(moved, target**0.5 * clean + (1 - target) ** 0.5 * noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_step_equals_the_one_of_diffusers(prediction_type: str) -> None:
    backbone = stable_diffusion.StableDiffusion(tiny_pipeline(prediction_type, size=64), "tiny")
    noise_schedule, text = backbone.noise_schedule(20, 5), backbone.embed(["a mug", "ball"])
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    backbone.scheduler.set_timesteps(20)
    for index, timestep in enumerate(noise_schedule.timesteps):
        with torch.no_grad():
            output = backbone.unet(latents, timestep, encoder_hidden_states=text.states).sample
            noise = backbone.denoise(latents, timestep, text).output
        expected = backbone.scheduler.step(output, timestep, latents).prev_sample
        torch.testing.assert_close(ddim_step(latents, noise, *noise_schedule.levels[index : index + 2]), expected)
