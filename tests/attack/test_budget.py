"""The budget of naturalness: its force, and the limit on every saved file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.attack.budget import Holding
from attnshift.attack.effort import Effort
from attnshift.attack.run import run_attack
from attnshift.metrics.budget import Budget
from tiers import fast_first

if TYPE_CHECKING:
    from attack.conftest import Prepare

SHORT = ["optimiser.iterations=2", "finish.early=false", "optimiser.relative=true"]


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()


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


@pytest.mark.parametrize("metric", fast_first(["linf", "ssim", "l2", "haarpsi"]))
def test_every_file_keeps_its_limit_and_spends_it_as_if_its_image_were_alone(prepared: Prepare, metric: str) -> None:
    limit = {"ssim": 0.9, "haarpsi": 0.95, "l2": 1.0, "linf": 0.1}[metric]
    settings = [*SHORT, f"budget={{metric='{metric}', limit={limit}}}"]
    batch = prepared("quick", settings, slice(2))
    together = run_attack(batch)
    spent = Budget.of(metric, limit).spent(batch.images, together.images)
    assert (spent <= 1).all()
    assert (spent > 0.8).all()
    first, second = (run_attack(prepared("quick", settings, slice(at, at + 1))) for at in range(2))
    # Of each image two iterations, the last iterate, and the strengths of its own search: levels of linf are too
    # coarse to end it.
    trials = {"linf": (7, 7), "ssim": (6, 5), "l2": (6, 6), "haarpsi": (6, 3)}[metric]
    steps = len(batch.render.trajectory.noise_schedule)
    for alone, tried in zip((first, second), trials, strict=True):
        assert alone.effort == Effort(gradients=2, denoisings=steps * (2 + 1 + tried))
    assert together.effort == Effort(gradients=2 * 2, denoisings=steps * (2 * (2 + 1) + sum(trials)))
    torch.testing.assert_close(second.images[0], together.images[1], rtol=0, atol=1.01 / 255)
    assert second.iterations[0] == together.iterations[1]


def test_where_the_clean_path_breaks_the_limit_the_clean_image_is_saved(prepared: Prepare) -> None:
    settings = [*SHORT, "optimiser.iterations=1", "diffusion.residual=false", "budget={metric='linf', limit=0.004}"]
    batch = prepared("quick", settings, slice(1))
    assert torch.equal(run_attack(batch).images, batch.images)
