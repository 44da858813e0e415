"""Pixels that are optimised beside the latents: their gradient, their bounds, and their share of the change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.loop import AttackState, optimise_latents, value_and_grad
from attnshift.attack.pixels import pixel_share
from attnshift.attack.run import run_attack
from attnshift.errors import RecipeError
from attnshift.metrics.contrast import local_contrast
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import Recipe
from attnshift.recipes.strength import at_strength

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.attack.prepare import PreparedBatch

RATE = 0.002
BOTH = [
    f"pixels.learning_rate={RATE}",
    "pixels.radius=1",
    "pixels.contrast=0",
    "optimiser.iterations=2",
    "expectation.draws=1",
]


def moved(state: AttackState, values: Tensor) -> AttackState:
    assert state.pixels
    return replace(state, pixels=replace(state.pixels, values=values))


def noise(batch: PreparedBatch) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.01 * torch.randn(batch.images.shape, generator=generator, dtype=batch.images.dtype)


@pytest.mark.parametrize("balance", ["none", "share"])
def test_a_step_follows_the_gradient_of_the_whole_loss(prepared: Prepare, balance: str) -> None:
    settings = [*BOTH, f"optimiser.balance={balance}", "terms.l2.weight=0.3", "budget.metric=none"]
    batch = prepared("strong", [*settings, "budget.limit=0", "classification.momentum=0"], slice(1))
    latents, state = batch.render.trajectory.start + 0.01, AttackState.start(batch)
    found = value_and_grad(batch, latents, 1, moved(state, noise(batch)))
    added = noise(batch).requires_grad_()
    branch = batch.render(latents, batch.observe.sites, added)
    fused = batch.method.rule(batch.surrogates_at(1), branch.images, None)
    values, _ = batch.method.objective(batch.observe(branch, 1), {})
    factor = 1.0
    if balance == "share":
        assert found.state.balance
        factor = float(found.state.balance.factor("l2", torch.ones(1, dtype=torch.double)))
    loss = (branch.images * fused.direction.detach()).sum() + factor * values["l2"].sum()
    (slope,) = torch.autograd.grad(loss, added)
    assert found.state.pixels
    step = found.state.pixels.values - noise(batch)
    inside = ((batch.images + noise(batch) + step - 0.5).abs() < 0.5 - 1e-9) & ((branch.images - 0.5).abs() < 0.5)
    expected = -RATE * slope / slope.square().mean().sqrt()
    torch.testing.assert_close(step[inside], expected[inside])
    assert inside.float().mean() > 0.5


def test_pixels_are_added_to_what_the_latents_show_and_stay_in_range(prepared: Prepare) -> None:
    batch = prepared("strong", [*BOTH, "pixels.learning_rate=0.2"], slice(1))
    first, *_, last = optimise_latents(batch)
    assert first.state.added is not None
    assert not first.state.added.any()
    torch.testing.assert_close(first.images, batch.images)
    assert last.state.added is not None
    assert last.state.added.abs().max() > 0.1
    shown = batch.images + last.state.added
    assert shown.min() >= -1e-12
    assert shown.max() <= 1 + 1e-12
    assert not torch.equal(batch.render(last.latents).images, last.images)
    torch.testing.assert_close(batch.render(last.latents, added=last.state.added).images, last.images)


def test_no_value_exceeds_the_radius_also_where_the_search_goes_on(prepared: Prepare) -> None:
    batch = prepared("strong", [*BOTH, "pixels.learning_rate=0.2", "pixels.radius=0.05"], slice(1))
    *_, last = optimise_latents(batch)
    assert last.state.pixels
    for change in (last.state.pixels, last.state.pixels.scaled(torch.tensor([3.0], dtype=torch.double))):
        assert change.values.abs().max() == pytest.approx(0.05)
    half = last.state.pixels.scaled(torch.tensor([0.5], dtype=torch.double))
    torch.testing.assert_close(half.values, last.state.pixels.values / 2)


def test_contrast_bounds_each_pixel_by_what_is_around_it(prepared: Prepare) -> None:
    batch = prepared("strong", [*BOTH, "pixels.learning_rate=0.2", "pixels.contrast=0.5"], slice(1))
    *_, last = optimise_latents(batch)
    assert last.state.pixels
    change = last.state.pixels.values.abs().amax(1, keepdim=True)
    bounds = 0.5 * local_contrast(batch.images)
    assert (change <= bounds + 1e-12).all()
    assert bounds.min() < 0.99 * bounds.max()
    assert (change > 0.99 * bounds).double().mean() > 0.5


def test_an_image_does_not_depend_on_its_batch_mates(prepared: Prepare) -> None:
    *_, together = optimise_latents(prepared("strong", BOTH, slice(2)))
    *_, alone = optimise_latents(prepared("strong", BOTH, slice(1, 2)))
    assert together.state.added is not None
    assert alone.state.added is not None
    torch.testing.assert_close(alone.state.added[0], together.state.added[1], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(alone.images[0], together.images[1], rtol=1e-6, atol=1e-12)


def test_a_budget_holds_and_the_share_says_what_spent_it(prepared: Prepare) -> None:
    both = run_attack(prepared("strong", BOTH, slice(1)))
    assert both.pixel_share is not None
    assert both.spent is not None
    assert both.spent.max() <= 1
    assert ((both.pixel_share > 0) & (both.pixel_share < 1)).all()


def test_still_latents_leave_all_to_the_pixels_and_ask_no_denoiser(prepared: Prepare) -> None:
    once = [*BOTH, "optimiser.iterations=1"]
    still = run_attack(prepared("strong", [*once, "optimiser.learning_rate=0"], slice(1)))
    crawling = run_attack(prepared("strong", [*once, "optimiser.learning_rate=1e-15"], slice(1)))
    assert still.effort.denoisings == 0
    assert crawling.effort.denoisings > 0
    torch.testing.assert_close(still.images, crawling.images)
    assert (still.images != prepared("strong", BOTH, slice(1)).images).any()
    assert still.pixel_share is not None
    # Rounding to 8 bits is the rest.
    assert still.pixel_share.min() > 0.9


def test_the_share_is_that_of_the_squares() -> None:
    images = torch.zeros(2, 3, 4, 4)
    pixels = torch.stack([torch.full((3, 4, 4), 0.1), torch.zeros(3, 4, 4)])
    assert pixel_share(images, pixels + 0.2, pixels).tolist() == pytest.approx([0.2, 0.0])


def test_strength_scales_both_steps() -> None:
    half = at_strength(load_recipe("strong", BOTH), 0.5)
    assert isinstance(half, Recipe)
    assert half.pixels.learning_rate == pytest.approx(RATE / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["classification.space=latent"], r"pixels\.learning_rate needs gradients at the image"),
        (["optimiser.learning_rate=0", "terms.entropy.weight=1"], r"what terms read stays as it is"),
        (["optimiser.learning_rate=0", "pixels.learning_rate=0"], r"nothing moves"),
    ],
)
def test_settings_that_cannot_be_meant(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("strong", [*BOTH, *settings])
