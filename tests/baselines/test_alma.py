"""The attack that optimises a budget: its penalty, and the optimum where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnshift.baselines.alma import AlmaBudget
from attnshift.baselines.lagrangian import Multipliers, penalty_slope
from attnshift.data.images import quantise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy
from attnshift.metrics.budget import Budget
from attnshift.types import Goals, RandomKey

SIDE = 16
KEY = RandomKey(0, ("a", "b"), 0)


def penalty(excess: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    over = mu * excess + mu * rho * excess**2 + rho**2 * excess**3 / 6
    return torch.where(excess >= 0, over, mu * excess / (1 - rho * excess))


def linear(scale: float = 1.0) -> Surrogates:
    """Three classes, the third far below, linear in the pixels; both images are of class 0."""
    drawn = torch.randn(3, 3 * SIDE**2, generator=torch.Generator().manual_seed(0))

    def classifier(images: Tensor) -> Tensor:
        biases = torch.tensor([2.0, 0.0, -1e4])
        return scale * ((images - 0.5).flatten(1) @ drawn.T + biases)

    classifier.weights = drawn  # type: ignore[attr-defined]
    return Surrogates([classifier], CrossEntropy(), Goals(torch.tensor([0, 0])))


def test_the_slope_is_that_of_the_penalty() -> None:
    excess = torch.tensor([-0.9, -0.1, 0.0, 0.2, 3.0], dtype=torch.float64, requires_grad=True)
    rho, mu = torch.full_like(excess, 1.3).detach(), torch.full_like(excess, 0.7).detach()
    (slope,) = torch.autograd.grad(penalty(excess, rho, mu).sum(), excess)
    torch.testing.assert_close(penalty_slope(excess.detach(), rho, mu), slope)
    near = torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64)
    torch.testing.assert_close(penalty_slope(near, rho[:3], mu[:3]), mu[:3])


def test_rho_grows_where_an_image_stays_over_the_budget() -> None:
    multipliers = Multipliers.start(torch.zeros(3, 1))
    for step in range(20):
        falls = 0.8 if step < 10 else 0.4
        excess = torch.tensor([0.8, falls, -0.1 if step == 15 else 0.8])
        _, multipliers = multipliers.step(excess, step, 0.5)
    torch.testing.assert_close(multipliers.rho, torch.tensor([1.2, 1.0, 1.0]))
    assert multipliers.mu[0] > multipliers.mu[1] > 1


def test_a_linear_classifier_is_moved_along_its_weights_to_the_edge() -> None:
    """The least margin at the distance r is margin - r |w_0 - w_1|."""
    images, surrogates = quantise(torch.full((2, 3, SIDE, SIDE), 0.5)), linear()
    budget = Budget.of("l2", 1.0)
    attacked = AlmaBudget().spend(surrogates, images, KEY, budget)
    assert budget.keeps(images, attacked).all()
    weights = surrogates.classifiers[0].weights  # type: ignore[attr-defined]
    fall = surrogates.judge(images)[1] - surrogates.judge(attacked)[1]
    assert (fall > 0.93 * (weights[0] - weights[1]).norm()).all()


def test_the_first_step_does_not_depend_on_the_scale_of_the_logits() -> None:
    images, budget = quantise(torch.full((2, 3, SIDE, SIDE), 0.5)), Budget.of("l2", 1.0)
    found = [AlmaBudget(steps=8).spend(linear(scale), images, KEY, budget) for scale in (1.0, 100.0)]
    spent = [budget.spent(images, each) for each in found]
    torch.testing.assert_close(spent[0], spent[1], rtol=0.1, atol=0)


def test_an_image_that_no_change_helps_comes_back() -> None:
    images = quantise(torch.full((2, 3, SIDE, SIDE), 0.5))
    flat = Surrogates([lambda shown: 0 * shown.flatten(1)[:, :3]], CrossEntropy(), Goals(torch.tensor([0, 0])))
    assert torch.equal(AlmaBudget(steps=3).spend(flat, images, KEY, Budget.of("l2", 1.0)), images)


def test_without_a_budget_it_does_not_run() -> None:
    images = torch.full((2, 3, SIDE, SIDE), 0.5)
    with pytest.raises(RecipeError, match=r"^AlmaBudget optimises a budget and runs only within one"):
        AlmaBudget()(linear(), images, KEY)
