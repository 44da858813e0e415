"""Inversion with an ideal model, one whose prediction is the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.diffusion.backbone import Prediction
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.ddim import ddim_step
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.diffusion.flow import Flow
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.noise_schedule import NoiseSchedule, Pairing
from attnshift.diffusion.reconstruction import Offset
from mirror import Mirror

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class ConstantNoise:
    noise: Tensor

    def denoise(
        self, latents: Tensor, timestep: int, text: Tensor, sites: object = (), rows: object = ()
    ) -> Prediction:
        return Prediction(self.noise, {})


@dataclass(frozen=True)
class CountingNoise:
    """Predicts a multiple of the latents and writes down where it was asked."""

    asked: list[tuple[int, Tensor]]

    def denoise(self, latents: Tensor, timestep: int, text: Tensor) -> Prediction:
        self.asked.append((timestep, latents))
        return Prediction(0.3 * latents, {})


EMPTY = Conditioning(torch.zeros(1, 1, 1))
STRAIGHT = NoiseSchedule((900.0, 600.0, 250.0), (0.9, 0.6, 0.25, 0.0), 0.97, Flow())


def round_trip(noise_schedule: NoiseSchedule, pairing: Pairing, rounds: int) -> Tensor:
    """Relative error of a latent that went up and down again, [batch]."""
    draw = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64, generator=draw)
    text = Conditioning(torch.zeros(3, 1, 1, dtype=torch.float64))
    model = ConstantNoise(noise)
    stored = invert(model, noise_schedule, latents, text, pairing, rounds)  # type: ignore[arg-type]
    trajectory = Trajectory(noise_schedule, stored[0], text, (text,) * len(noise_schedule), None, guidance=1.0)
    back, _ = denoise(model, trajectory, stored[0])  # type: ignore[arg-type]
    return (back - latents).flatten(1).norm(dim=1) / latents.flatten(1).norm(dim=1)


@pytest.mark.parametrize("steps", [1, 5, 19])
@pytest.mark.parametrize("rounds", [0, 2])
def test_aligned_round_trip_is_exact(backbone: StableDiffusion, steps: int, rounds: int) -> None:
    assert round_trip(backbone.noise_schedule(20, steps), "aligned", rounds).max() < 1e-6


@pytest.mark.parametrize("rounds", [0, 2])
def test_aligned_round_trip_is_exact_on_a_flow(rounds: int) -> None:
    assert round_trip(STRAIGHT, "aligned", rounds).max() < 1e-12


def test_offsets_make_the_clean_path_of_a_flow_exact() -> None:
    """Each step of a network that answers to its latents lands on the stored ones, under guidance as well."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=draw)
    text, empty = (Conditioning(torch.full((2, 1, 1), value, dtype=torch.float64)) for value in (1.0, 0.0))
    model = Mirror(noise=lambda latents, timestep, text: (latents + text.view(-1, 1, 1, 1)).sin() * timestep / 500)
    stored = invert(model, STRAIGHT, latents, empty, "aligned")  # type: ignore[arg-type]
    made = Offset()(model, STRAIGHT, stored, text, empty, 2.5)  # type: ignore[arg-type]
    assert made.offsets is not None
    assert min(float(each.abs().max()) for each in made.offsets) > 0.01
    back, _ = denoise(model, made, made.start)  # type: ignore[arg-type]
    torch.testing.assert_close(back, latents, rtol=1e-12, atol=1e-12)


def test_compat_round_trip_misses_by_nine_percent(backbone: StableDiffusion) -> None:
    errors = round_trip(backbone.noise_schedule(20, 5), "compat", 0)
    assert errors.min() > 0.07
    assert errors.max() < 0.11


@pytest.mark.parametrize("pairing", ["aligned", "compat"])
def test_first_latent_stands_at_the_pairings_level(backbone: StableDiffusion, pairing: Pairing) -> None:
    """A latent without a clean part and unit noise has the norm sqrt(1 - alpha) of its level."""
    noise_schedule = backbone.noise_schedule(20, 5)
    noise = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lowest = noise_schedule.levels[-1] if pairing == "aligned" else noise_schedule.levels[-2]
    model, start = ConstantNoise(noise), (1 - lowest) ** 0.5 * noise
    first = invert(model, noise_schedule, start, EMPTY, pairing)[0]  # type: ignore[arg-type]
    top = {"aligned": noise_schedule.levels[0], "compat": noise_schedule.above}[pairing]
    torch.testing.assert_close(first, (1 - top) ** 0.5 * noise)


def test_prediction_is_asked_at_the_lower_latent_and_then_at_the_upper_one(backbone: StableDiffusion) -> None:
    noise_schedule = backbone.noise_schedule(20, 2)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    asked: list[tuple[int, Tensor]] = []
    stored = invert(CountingNoise(asked), noise_schedule, latents, EMPTY, "aligned", 1)  # type: ignore[arg-type]
    assert [timestep for timestep, _ in asked] == [1, 1, 51, 51]
    first_guess = ddim_step(latents, 0.3 * latents, noise_schedule.levels[2], noise_schedule.levels[1])
    torch.testing.assert_close(asked[1][1], first_guess)
    torch.testing.assert_close(
        stored[1], ddim_step(latents, 0.3 * first_guess, noise_schedule.levels[2], noise_schedule.levels[1])
    )
    assert torch.equal(stored[2], latents)
    assert torch.equal(asked[2][1], stored[1])
