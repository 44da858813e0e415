"""The path of a rectified flow: its steps against diffusers' scheduler, its noise against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnshift.diffusion.ddim import Ddim
from attnshift.diffusion.flow import Flow
from attnshift.diffusion.noise_schedule import NoisePath
from later import later

diffusers = later("diffusers")

SHARES = st.floats(0.0, 0.99)


def drawn(count: int) -> Tensor:
    return torch.randn(count, 2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@settings(max_examples=20)
@given(SHARES, SHARES)
def test_a_step_along_the_velocity_keeps_the_clean_latents_and_the_noise(source: float, target: float) -> None:
    clean, noise = drawn(2)
    path = Flow()
    moved = path.step(path.noised(clean, noise, source), path.prediction(clean, noise), source, target)
    torch.testing.assert_close(moved, path.noised(clean, noise, target), rtol=1e-9, atol=1e-9)


def test_every_step_equals_the_one_of_diffusers() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    latents, velocity = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for index, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.step(velocity, timestep, latents).prev_sample  # type: ignore[arg-type, union-attr]
        levels = (float(each) for each in scheduler.sigmas[index : index + 2])
        torch.testing.assert_close(Flow().step(latents, velocity, *levels), expected)


@pytest.mark.parametrize("path", [Ddim(), Flow()], ids=["ddim", "flow"])
def test_fresh_noise_brings_latents_back_to_the_level_before(path: NoisePath) -> None:
    """The signal is that of the level, and so is the variance of all noise together."""
    clean, old, new = torch.randn(3, 1, 100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    source, target = {True: (0.7, 0.4), False: (0.3, 0.6)}[isinstance(path, Flow)]
    again = path.noised_again(path.noised(clean, old, target), new, source, target)
    left = again - (path.noised(clean, 0 * clean, source))
    assert float((left * clean).mean()) == pytest.approx(0, abs=0.01)
    wanted = path.noised(0 * clean, torch.ones_like(clean), source).square().mean()
    assert float(left.var()) == pytest.approx(float(wanted), rel=0.02)


@settings(max_examples=20)
@given(st.floats(0.01, 0.9))
def test_a_raised_score_moves_both_paths_alike(sigma: float) -> None:
    """At the same share of signal, what the clean latents gain by it is the gradient times the noise's variance."""
    flow, ddim, gradient = Flow(), Ddim(), torch.ones(1, dtype=torch.float64)
    alpha = flow.alpha(sigma)
    gained = [
        path.step(0 * gradient, -path.per_score(level) * gradient, level, path.clean)
        for path, level in ((flow, sigma), (ddim, alpha))
    ]
    signal, noise = 1 - sigma, sigma
    torch.testing.assert_close(gained[0], gradient * noise**2 / signal)
    torch.testing.assert_close(gained[1], gradient * (1 - alpha) / alpha**0.5)
    assert flow.per_score(1.0) == 0
