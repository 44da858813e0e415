"""Diff-PGD held to its formulas, on a model whose purification is known in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch import Tensor

from attnshift.baselines.diffpgd import DiffPGD, OfficialDiffPGD
from attnshift.baselines.edits import EditInput
from attnshift.baselines.pixel import MIFGSM, PGD
from attnshift.baselines.purified import ladder, prepare_purified
from attnshift.testing.models import pictures, small_classifier
from mirror import Mirror, keys, linear_surrogates

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

BARE: dict[str, Any] = {"residual": False, "steps": 3, "step_size": 0.02, "epsilon": 0.04}


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def input_on(backbone: Any, images: Tensor, weights: Tensor | None = None) -> EditInput:
    weights = drawn(5, *images.shape[1:]) if weights is None else weights
    count = len(images)
    return EditInput(backbone, linear_surrogates(weights, count), images, ("",) * count, keys(count))


@pytest.mark.parametrize("gradient", ["approximate", "exact"])
@pytest.mark.parametrize("random_start", [False, True])
def test_it_is_pgd_where_purification_changes_nothing(gradient: Any, random_start: bool) -> None:
    given = input_on(Mirror(), drawn(2, 3, 8, 8))
    attack = DiffPGD(**BARE, gradient=gradient, random_start=random_start)
    plain = PGD(epsilon=0.04, step_size=0.02, steps=3)
    if not random_start:
        plain = MIFGSM(epsilon=0.04, step_size=0.02, steps=3, decay=0.0)
    expected = plain(given.surrogates, given.images, given.key)
    found = attack.prepare(given)(torch.ones(2))
    assert torch.equal(found, expected)
    assert not torch.equal(found, given.images)


def test_a_linear_purification_is_seen_by_the_exact_gradient_alone() -> None:
    mixing = torch.tensor([[0.9, -0.6, 0.3], [0.2, 0.5, 0.3], [-0.4, 0.3, 0.8]])
    images, weights = 0.4 + 0.2 * drawn(2, 3, 8, 8), drawn(2, 3, 8, 8) - 0.5
    backbone = Mirror(decoder=lambda latents: torch.einsum("dc,bchw->bdhw", mixing, latents))
    given = input_on(backbone, images, weights)
    # With two classes the cross-entropy rises along the difference of their weights.
    uphill = weights[1] - weights[0]
    signs = {"approximate": uphill.sign(), "exact": torch.einsum("dc,dhw->chw", mixing, uphill).sign()}
    assert not torch.equal(*signs.values())
    for gradient, sign in signs.items():
        attack = DiffPGD(**BARE | {"steps": 1}, gradient=gradient)  # type: ignore[arg-type]
        expected = backbone.decode(images + 0.02 * sign)
        assert 0 < expected.min() < expected.max() < 1
        assert torch.allclose(attack.prepare(given)(torch.ones(2)), expected, atol=1e-6)


@pytest.mark.parametrize(("gradient", "backwards"), [("approximate", 0), ("exact", 3 * 4)])
def test_only_the_exact_gradient_passes_the_denoiser(gradient: Any, backwards: int) -> None:
    backbone = Mirror()
    given = input_on(backbone, drawn(2, 3, 8, 8))
    DiffPGD(**BARE, gradient=gradient).prepare(given)(torch.ones(2))
    assert (backbone.forwards, backbone.backwards) == (2 * 4 * 4, 2 * backwards)


@pytest.mark.parametrize("noise", ["fixed", "fresh"])
@pytest.mark.parametrize("residual", [False, True])
def test_radius_0_is_the_control_arm(backbone: StableDiffusion, noise: Any, residual: bool) -> None:
    given = EditInput(backbone, linear_surrogates(drawn(2, 3, 64, 64), 2), pictures(2), ("", ""), keys(2))
    attack = DiffPGD(noise=noise, residual=residual, steps=1, depth=1).prepare(given)
    assert torch.equal(attack(torch.zeros(2)), attack.floor())
    assert torch.equal(attack.floor(), given.images) == residual
    assert not torch.equal(attack(torch.ones(2)), attack.floor())


def test_noise_is_drawn_anew_in_each_iteration_or_once() -> None:
    given = input_on(Mirror(levels=(0.5, 0.9, 1.0)), drawn(2, 3, 8, 8))

    def purified(noise: Literal["fixed", "fresh"], iteration: int, seed: int = 0) -> Tensor:
        attack = prepare_purified(DiffPGD(noise=noise), replace(given, key=replace(given.key, seed=seed)))
        return attack.purify(given.images, iteration)

    assert torch.equal(purified("fresh", 0), purified("fresh", 0))
    assert not torch.equal(purified("fresh", 0), purified("fresh", 1))
    assert torch.equal(purified("fixed", 0), purified("fixed", 1))
    assert not torch.equal(purified("fixed", 0), purified("fixed", 0, seed=1))


def test_steps_are_those_nearest_to_the_levels_of_the_paper(backbone: StableDiffusion) -> None:
    found = ladder(backbone, 3)
    assert len(found) == 4
    assert found.levels == pytest.approx((0.95832, 0.97977, 0.99374, 0.9999, 1.0), abs=2e-3)
    for timestep, level in zip(found.timesteps, found.levels, strict=False):
        own = backbone.noise_schedule(1000, 999)
        assert own.levels[own.timesteps.index(timestep)] == level
    assert ladder(backbone, 0).levels == found.levels[-2:]


def test_an_attack_whose_control_arm_is_too_far_lowers_its_noise() -> None:
    attack, depths = OfficialDiffPGD(), []
    while attack is not None:
        depths.append(attack.depth)
        attack = attack.milder
    assert depths == [3, 2, 1, 0]


def test_pixels_that_are_not_clipped_leave_the_range_on_the_way() -> None:
    images = torch.ones(1, 3, 8, 8)
    seen: list[float] = []

    def decode(latents: Tensor) -> Tensor:
        seen.append(float(latents.max()))
        return latents

    weights = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    for clip, highest in (("steps", 1.0), ("end", 1.04)):
        seen.clear()
        attack = DiffPGD(**BARE, clip=clip)  # type: ignore[arg-type]
        found = attack.prepare(input_on(Mirror(decoder=decode), images, weights))(torch.ones(1))
        assert max(seen) == pytest.approx(highest)
        assert seen[-1] <= 1
        assert float(found.max()) == 1


def test_a_small_step_along_the_exact_gradient_lowers_the_loss(backbone: StableDiffusion) -> None:
    images = pictures(2)
    surrogates = linear_surrogates(drawn(2, 3, 64, 64), 2)
    labels = small_classifier()(images).argmax(1)
    goals = replace(surrogates.goals, labels=labels)
    surrogates = replace(surrogates, classifiers=[small_classifier()], goals=goals)
    given = EditInput(backbone, surrogates, images, ("", ""), keys(2))
    attack = DiffPGD(steps=1, depth=0, step_size=1e-4, gradient="exact").prepare(given)
    before, after = (surrogates.judge(each)[0] for each in (attack.floor(), attack(torch.ones(2))))
    assert (after < before).all()
