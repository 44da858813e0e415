"""The budget of naturalness: its force, the search for its edge, and the limit on every saved file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.budget import Holding, dithered, furthest_kept
from attnshift.attack.effort import Effort
from attnshift.attack.run import run_attack
from attnshift.errors import RecipeError
from attnshift.metrics.budget import Budget
from attnshift.types import RandomKey
from tiers import fast_first

if TYPE_CHECKING:
    from attack.conftest import Prepare

SHORT = ["optimiser.iterations=2", "finish.early=false", "optimiser.relative=true"]


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()


def test_what_is_spent_is_0_for_equal_images_and_1_at_the_limit() -> None:
    distance = Budget.of("linf", 0.2)
    torch.testing.assert_close(distance.spent(grey(0.5, 0.5), grey(0.5, 0.6)), torch.tensor([0.0, 0.5]))
    similarity = Budget.of("ssim", 0.8)
    assert similarity.spent(grey(0.5), grey(0.5)).item() == pytest.approx(0, abs=1e-4)
    assert replace(similarity, metric=lambda *_: torch.tensor([0.8])).spent(grey(0.5), grey(0.5)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "limit", "complaint"),
    [
        ("ssim", 1.0, "give a number below that"),
        ("l2", 0.0, "give a number above that"),
        ("psnr", 35.0, "inf for equal images"),
        ("sim", 0.9, "ssim"),
    ],
)
def test_a_budget_that_no_image_keeps_is_refused(name: str, limit: float, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        Budget.of(name, limit)


def test_the_force_is_that_of_the_augmented_lagrangian_in_units_of_the_direction() -> None:
    images, points = grey(0.5, 0.5), grey(0.5, 0.5).requires_grad_()
    # Half a budget left in the first image, half a budget too much in the second.
    changed = points + torch.tensor([0.05, 0.15]).view(-1, 1, 1, 1)
    direction = torch.full_like(images, -3.0)
    holding = Holding.start(Budget.of("l2", 0.1 * images[0].numel() ** 0.5), images)
    force, once = holding.step(images, changed, points, direction)
    torch.testing.assert_close(once.multiplier, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(force, torch.stack([0 * direction[0], -0.5 * direction[1]]))
    torch.testing.assert_close(once.spent, torch.tensor([0.5, 1.5]))
    _, twice = once.step(images, changed, points, direction)
    torch.testing.assert_close(twice.multiplier, torch.tensor([0.0, 1.0]))


def test_a_metric_without_a_slope_holds_as_the_euclidean_distance_does() -> None:
    points = grey(0.5).requires_grad_()
    changed = points + torch.linspace(0.1, 0.3, 16)
    held, _ = Holding.start(Budget.of("linf", 0.2), grey(0.5)).step(grey(0.5), changed, points, grey(0.0))
    torch.testing.assert_close(held / held.norm(), (changed - 0.5) / (changed - 0.5).norm())


def test_the_edge_is_found_inside_and_beyond_the_edit_and_never_passed() -> None:
    images, change = grey(0.5, 0.5, 0.5), torch.tensor([0.4, 0.04, 0.001]).view(-1, 1, 1, 1)
    budget = Budget.of("linf", 0.1)
    strengths, found = furthest_kept(budget, images, images, lambda each: images + each.view(-1, 1, 1, 1) * change)
    torch.testing.assert_close(strengths[:2], torch.tensor([0.25, 2.5]), rtol=0.02, atol=0)
    assert strengths[2] == pytest.approx(4, rel=0.01), "the search goes no further than four times the edit"
    assert budget.keeps(images, found).all()


def test_where_the_start_breaks_the_limit_the_image_itself_comes_back() -> None:
    strengths, found = furthest_kept(Budget.of("linf", 0.1), grey(0.5), grey(0.9), lambda _: grey(0.9))
    assert strengths.tolist() == [0]
    assert torch.equal(found, grey(0.5))


def test_dithering_keeps_the_mean_and_whole_levels() -> None:
    images, key = grey(100.3 / 255, 7 / 255), RandomKey(0, ("a", "b"), 0)
    levels = dithered(images, key) * 255
    assert set(levels[0].round().flatten().tolist()) == {100, 101}
    assert levels[0].mean().item() == pytest.approx(100.3, abs=0.05)
    assert torch.equal(levels[1].round(), torch.full_like(levels[1], 7))
    torch.testing.assert_close(dithered(images[1:], RandomKey(0, ("b",), 0)), levels[1:] / 255)


@pytest.mark.parametrize("metric", fast_first(["linf", "ssim", "l2", "haarpsi"]))
def test_every_file_keeps_its_limit_and_spends_it_as_if_its_image_were_alone(prepared: Prepare, metric: str) -> None:
    limit = {"ssim": 0.9, "haarpsi": 0.95, "l2": 1.0, "linf": 0.1}[metric]
    settings = [*SHORT, f"budget={{metric='{metric}', limit={limit}}}"]
    batch = prepared("quick", settings, slice(2))
    together = run_attack(batch)
    spent = Budget.of(metric, limit).spent(batch.images, together.images)
    assert (spent <= 1).all()
    assert (spent > 0.8).all()
    steps = len(batch.render.trajectory.noise_schedule)
    # Two iterations, the last iterate, and seven strengths of the search.
    assert together.effort == Effort(gradients=2 * 2, denoisings=2 * steps * (2 + 1 + 7))
    alone = run_attack(prepared("quick", settings, slice(1, 2)))
    torch.testing.assert_close(alone.images[0], together.images[1], rtol=0, atol=1.01 / 255)
    assert alone.iterations[0] == together.iterations[1]


def test_where_the_clean_path_breaks_the_limit_the_clean_image_is_saved(prepared: Prepare) -> None:
    settings = [*SHORT, "optimiser.iterations=1", "diffusion.residual=false", "budget={metric='linf', limit=0.004}"]
    batch = prepared("quick", settings, slice(1))
    assert torch.equal(run_attack(batch).images, batch.images)
