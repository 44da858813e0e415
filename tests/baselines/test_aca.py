"""ACA held to its formulas, on a model whose denoiser ignores what it denoises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.baselines.aca import ACA, OfficialACA
from attnshift.baselines.content import Content, at_boundary
from attnshift.baselines.edits import EditInput
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.denoising import denoise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy
from attnshift.types import Goals
from mirror import Mirror, input_on, keys

LEVELS = (0.3, 0.6, 0.9, 0.99)


def blind(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
    """Noise that depends on the step and the prompt alone."""
    pattern = torch.linspace(-1, 1, latents[0].numel()).view(latents[0].shape)
    return (pattern * timestep * (1 + text.mean((1, 2)).view(-1, 1, 1, 1) / 10)).expand_as(latents)


def run(attack: ACA, noise: Callable[..., Tensor] = blind) -> tuple[Content, Tensor, list[Tensor]]:
    """The prepared attack, its images at strength 1, and the start of every way back."""
    backbone = Mirror(levels=LEVELS, noise=noise)
    prepared = attack.prepare(input_on(backbone))
    assert isinstance(prepared, Content)
    backbone.starts.clear()
    attacked = prepared(torch.ones(2))
    # The first half of a guided batch is unconditional.
    return prepared, attacked, [each[len(each) // 2 :] for each in backbone.starts]


def loss(prepared: Content, end: Tensor) -> Tensor:
    """What the paper raises, of each image, for latents at the end of the way back."""
    given, options = prepared.given, prepared.options
    (classifier,) = given.surrogates.classifiers
    shown = at_boundary(end if prepared.residual is None else end + prepared.residual)
    crossed = torch.nn.functional.cross_entropy(classifier(shown), given.surrogates.goals.labels, reduction="none")
    distances = ((shown - given.images) / 0.3).flatten(1).norm(dim=1)
    still = (shown - given.images).detach().abs().amax((1, 2, 3)) < 1e-4
    return crossed - options.nearness * torch.where(still, 0.0, distances)


@pytest.mark.parametrize("preset", [ACA, OfficialACA])
def test_steps_of_length_0_give_the_control_arm(preset: type[ACA]) -> None:
    prepared, attacked, starts = run(preset(step_size=0.0, steps=2))
    assert torch.equal(attacked, prepared.floor())
    assert all(torch.equal(each, prepared.trajectory.start) for each in starts)
    assert torch.equal(prepared(torch.zeros(2)), prepared.floor())


@pytest.mark.parametrize("nearness", [0.0, 0.1])
def test_where_the_denoiser_ignores_its_input_the_skipped_gradient_is_the_exact_one(nearness: float) -> None:
    attack = ACA(steps=4, epsilon=0.3, step_size=0.05, nearness=nearness)
    prepared, _, starts = run(attack)
    noise = first = prepared.trajectory.start
    momentum = torch.zeros_like(noise)
    for start in starts:
        assert torch.allclose(start, noise, atol=1e-5)
        leaf = noise.detach().requires_grad_()
        end, _ = denoise(prepared.given.backbone, prepared.trajectory, leaf)
        (exact,) = torch.autograd.grad(loss(prepared, end).sum(), leaf)
        momentum = momentum + exact / exact.abs().sum((1, 2, 3), keepdim=True)
        noise = first + (noise - first + 0.05 * momentum.sign()).clamp(-0.3, 0.3)
    assert len(starts) == 5, "one for each gradient, and one for the result"


def test_without_momentum_each_step_is_a_sign() -> None:
    prepared, _, starts = run(ACA(steps=3, epsilon=1.0, step_size=0.05, decay=0.0))
    for start, following in pairwise(starts):
        end = prepared.end(start, torch.ones(2)).requires_grad_()
        (uphill,) = torch.autograd.grad(loss(prepared, end).sum(), end)
        assert torch.allclose(following - start, 0.05 * uphill.sign(), atol=1e-5)


def test_the_start_stays_in_its_ball_and_fills_it() -> None:
    def curved(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        return torch.tanh(latents * timestep + text.mean())

    prepared, _, starts = run(ACA(steps=6, guidance=2.0), curved)
    moved = [float((start - prepared.trajectory.start).abs().max()) for start in starts]
    assert moved[0] == 0
    assert moved[1] == pytest.approx(0.04, abs=1e-6)
    assert max(moved) <= 0.1 + 1e-6
    assert max(moved[3:]) == pytest.approx(0.1, abs=1e-6), "0.4 epsilon a step fills the ball in three"


def test_the_way_back_ends_at_the_image_again() -> None:
    def curved(latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        return torch.tanh(latents * timestep + text.mean((1, 2)).view(-1, 1, 1, 1))

    prepared, _, _ = run(ACA(steps=1, residual=False), curved)
    assert torch.allclose(prepared.floor(), prepared.given.images, atol=1e-4), "offsets alone, but for the map"
    bare = replace(prepared.trajectory, offsets=None)
    assert not torch.allclose(
        denoise(prepared.given.backbone, bare, bare.start)[0], prepared.given.images, atol=1e-2
    ), "without them the guidance leads away, so this test shows something"


@pytest.mark.parametrize("tested", ["files", "floats"])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_last_iterate_that_fools_is_kept(tested: Any, steps: int) -> None:
    """The other class wins in a narrow band alone: the second iterate is in it, and the third is back at the image."""

    class Band(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen = images.mean((1, 2, 3))
            return torch.stack([torch.zeros_like(seen), 1 - 4000 * (seen - 0.52).square()], 1)

    # One level at both ends: the start is the end.
    backbone: Any = Mirror(levels=(0.9, 0.9, 0.9))
    classifier = Classifier.wrap(Band(), "band", 8, [0.0] * 3, [1.0] * 3)
    images = torch.full((1, 3, 8, 8), 128 / 255)
    surrogates = Surrogates([classifier], CrossEntropy(), Goals.of([0], [None]))
    attack = ACA(steps=steps, step_size=0.03, epsilon=1.0, decay=0.0, nearness=0.0, tested=tested)
    prepared = attack.prepare(EditInput(backbone, surrogates, images, ("mug",), keys(1)))
    assert torch.allclose(prepared(torch.ones(1)), images + 0.03, atol=1e-5)
    assert torch.allclose(backbone.starts[-1][:1], images + 0.03 * (steps == 1), atol=1e-5)


def test_the_map_at_the_boundary_is_nearly_a_clamp() -> None:
    values = torch.tensor([-1.0, -0.003, 0.0, 0.3, 1.0, 1.003, 2.0], requires_grad=True)
    found = at_boundary(values)
    assert torch.allclose(found, values.clamp(0, 1), atol=1.01e-4)
    (slopes,) = torch.autograd.grad(found.sum(), values)
    assert slopes[2:5].tolist() == [1, 1, 1]
    assert slopes[5].item() == pytest.approx(1e-3, rel=0.05)
    edge = torch.tensor([1 + 2e-6], requires_grad=True)
    (slope,) = torch.autograd.grad(at_boundary(edge).sum(), edge)
    assert slope.item() == pytest.approx(0.1, rel=0.01)


def test_the_released_attack_shows_surrogates_nearest_pixels() -> None:
    """One decoded pixel in four has a gradient where the surrogates' images are half as large."""
    backbone = Mirror(levels=LEVELS, noise=blind)
    given = input_on(backbone)
    small = Classifier.wrap(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)), "small", 4, [0.0] * 3, [1.0] * 3
    )
    labels = small(given.images).argmax(1).tolist()
    surrogates = Surrogates([small], CrossEntropy(), Goals.of(labels, [None] * 2))
    given = replace(given, surrogates=surrogates)
    seen = {}
    for preset in (ACA, OfficialACA):
        prepared = preset(nearness=0.0).prepare(given)
        assert isinstance(prepared, Content)
        shown = replace(surrogates, show=prepared.resized)
        seen[preset] = (shown.gradients(given.images).gradients[0] != 0).float().mean().item()
    assert seen[ACA] == 1
    assert seen[OfficialACA] == 0.25
