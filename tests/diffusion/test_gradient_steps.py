"""A gradient that goes back through the last denoising steps only: same values, and a Jacobian of 1 before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.diffusion.ddim import ddim_step
from attnshift.diffusion.denoising import Trajectory, denoise, guided_prediction
from attnshift.diffusion.noise_schedule import Pairing
from attnshift.diffusion.reconstruction import Offset
from tiers import fast_first

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.types import Site
    from diffusion.conftest import Inverted

STEPS = 5
whether_checkpointed = pytest.mark.parametrize("checkpointing", fast_first([True, False]))


@pytest.fixture(scope="module")
def trajectories(backbone: StableDiffusion, paths: dict[Pairing, Inverted]) -> Callable[[float], Trajectory]:
    path = paths["aligned"]
    return lambda guidance: Offset()(backbone, path.noise_schedule, path.stored, path.text, path.empty, guidance)


def sites(backbone: StableDiffusion) -> tuple[Site, ...]:
    return tuple(site for site in backbone.sites(64) if site.grid.rows == 4)


def walked(
    backbone: StableDiffusion, trajectory: Trajectory, gradient_steps: int, checkpointing: bool = False
) -> tuple[Tensor, Tensor, list[tuple[Tensor, ...]]]:
    """Final latents, the gradient at the start of a sum over them and over all maps, and the maps site by site."""
    start = trajectory.start.clone().requires_grad_()
    final, attention = denoise(backbone, trajectory, start, sites(backbone), checkpointing, gradient_steps)
    maps = [*attention.values()]
    (gradient,) = torch.autograd.grad(summed(final, [each for steps in maps for each in steps]), start)
    return final, gradient, maps


def summed(final: Tensor, maps: list[Tensor]) -> Tensor:
    """Both parts of a size that shows in the gradient."""
    return final.square().sum() + 100 * torch.stack([each.square().sum() for each in maps]).sum()


@pytest.mark.parametrize("guidance", fast_first([2.5, 1.0]))
@whether_checkpointed
@pytest.mark.parametrize("kept", fast_first([2, 1, 4]))
def test_values_are_the_same_to_the_bit_and_only_the_last_steps_maps_have_a_gradient(
    backbone: StableDiffusion,
    trajectories: Callable[[float], Trajectory],
    guidance: float,
    checkpointing: bool,
    kept: int,
) -> None:
    trajectory = trajectories(guidance)
    expected, _, whole = walked(backbone, trajectory, 0)
    final, _, maps = walked(backbone, trajectory, kept, checkpointing)
    assert torch.equal(final, expected)
    for found, plain in zip(maps, whole, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
        assert [each.requires_grad for each in found] == [False] * (STEPS - kept) + [True] * kept


@pytest.mark.parametrize("guidance", fast_first([2.5, 1.0]))
@whether_checkpointed
def test_going_back_through_all_steps_is_the_same_as_no_limit(
    backbone: StableDiffusion, trajectories: Callable[[float], Trajectory], guidance: float, checkpointing: bool
) -> None:
    trajectory = trajectories(guidance)
    _, expected, _ = walked(backbone, trajectory, 0, checkpointing)
    _, gradient, _ = walked(backbone, trajectory, STEPS, checkpointing)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("guidance", fast_first([2.5, 1.0]))
@whether_checkpointed
@pytest.mark.parametrize("kept", fast_first([2, 1, 4]))
def test_the_gradient_is_that_of_the_last_steps_alone(
    backbone: StableDiffusion,
    trajectories: Callable[[float], Trajectory],
    guidance: float,
    checkpointing: bool,
    kept: int,
) -> None:
    trajectory = trajectories(guidance)
    _, gradient, _ = walked(backbone, trajectory, kept, checkpointing)
    entering, expected = alone(backbone, trajectory, kept)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    # Not what all steps give: where the walk begins matters.
    _, whole, _ = walked(backbone, trajectory, 0)
    assert (gradient - whole).norm() > 0.01 * whole.norm()
    assert not torch.equal(entering, trajectory.start)


def alone(backbone: StableDiffusion, trajectory: Trajectory, kept: int) -> tuple[Tensor, Tensor]:
    """What enters the last ``kept`` steps, and the gradient there, step by step without ``denoise``."""

    def step(latents: Tensor, index: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        noise, maps = guided_prediction(backbone, trajectory, latents, index, sites(backbone))
        assert trajectory.offsets is not None
        moved = ddim_step(latents, noise, *trajectory.noise_schedule.levels[index : index + 2])
        return moved + trajectory.offsets[index], maps

    with torch.no_grad():
        entering = trajectory.start
        for index in range(STEPS - kept):
            entering, _ = step(entering, index)
    leaf = entering.clone().requires_grad_()
    latents, read = leaf, []
    for index in range(STEPS - kept, STEPS):
        latents, maps = step(latents, index)
        read += maps
    return entering, torch.autograd.grad(summed(latents, read), leaf)[0]


def test_without_a_gradient_nothing_changes(
    backbone: StableDiffusion, trajectories: Callable[[float], Trajectory]
) -> None:
    trajectory = trajectories(1.0)
    with torch.no_grad():
        expected, found = (denoise(backbone, trajectory, trajectory.start, gradient_steps=kept)[0] for kept in (0, 2))
    assert torch.equal(found, expected)
    assert not found.requires_grad
