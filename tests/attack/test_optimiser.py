"""The optimisers against torch's own, and by hand."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from attnshift.attack.optimiser import AdamW, start
from attnshift.batching import select_rows
from attnshift.recipes.schema import OptimiserSection


def gradients(steps: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(steps, 3, 4, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.3])
def test_ten_steps_are_those_of_torch(weight_decay: float) -> None:
    start = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    leaf = start.clone().requires_grad_()
    theirs = torch.optim.AdamW([leaf], lr=0.05, weight_decay=weight_decay)
    latents, ours = start, AdamW.start(start, 0.05, weight_decay)
    for gradient in gradients(10):
        leaf.grad = gradient.clone()
        theirs.step()
        latents, ours = ours.step(latents, gradient)
        torch.testing.assert_close(latents, leaf.detach(), rtol=1e-5, atol=1e-6)
    assert ours.steps == 10


def test_a_step_leaves_its_inputs_as_they_were() -> None:
    latents, gradient = gradients(2)
    before = AdamW.start(latents, 0.1, 0.1)
    copies = [each.clone() for each in (latents, gradient, before.mean, before.square)]
    before.step(latents, gradient)
    for now, then in zip((latents, gradient, before.mean, before.square), copies, strict=True):
        assert torch.equal(now, then)
    assert before.steps == 0


def test_rows_that_stay_go_on_as_if_nothing_had_left() -> None:
    latents, first, second = gradients(3)
    moved, state = AdamW.start(latents, 0.1, 0.01).step(latents, first)
    whole, _ = state.step(moved, second)
    keep = torch.tensor([2, 0])
    part, _ = select_rows(state, keep).step(moved[keep], second[keep])
    assert torch.equal(part, whole[keep])


@pytest.mark.parametrize("method", ["gradient", "sign"])
def test_descent_by_hand(method: Literal["gradient", "sign"]) -> None:
    section = OptimiserSection(method=method, learning_rate=0.5, weight_decay=0.1)
    latents = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 4.0]])
    gradient = torch.tensor([[0.2, -0.1, 0.0], [3.0, 0.0, -1e-6]])
    moved, after = start(section, latents).step(latents, gradient)
    step = gradient if method == "gradient" else torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    torch.testing.assert_close(moved, 0.95 * latents - 0.5 * step)
    again, _ = select_rows(after, torch.tensor([1])).step(moved[1:], gradient[1:])
    torch.testing.assert_close(again, 0.95 * moved[1:] - 0.5 * step[1:])


def test_descent_is_that_of_torch() -> None:
    begin = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    leaf = begin.clone().requires_grad_()
    theirs = torch.optim.SGD([leaf], lr=0.05)
    latents, ours = begin, start(OptimiserSection(method="gradient", learning_rate=0.05, weight_decay=0.0), begin)
    for gradient in gradients(5):
        leaf.grad = gradient.clone()
        theirs.step()
        latents, ours = ours.step(latents, gradient)
        torch.testing.assert_close(latents, leaf.detach())


def test_the_recipe_names_adamw_unless_it_says_otherwise() -> None:
    latents = torch.ones(1, 4, 2, 2)
    named = start(OptimiserSection(learning_rate=0.2), latents)
    assert isinstance(named, AdamW)
    assert (named.learning_rate, named.weight_decay, named.steps) == (0.2, 0.01, 0)


@pytest.mark.parametrize("method", ["adamw", "gradient", "sign"])
def test_relative_steps_depend_neither_on_the_scale_of_latents_nor_on_that_of_losses(
    method: Literal["adamw", "gradient", "sign"],
) -> None:
    section = OptimiserSection(method=method, learning_rate=0.1, weight_decay=0.1, iterations=2, relative=True)
    latents, *slopes = gradients(3, torch.float64)
    scale, ours, theirs = 7.0, start(section, latents), start(section, 7.0 * latents)
    here, there = latents, scale * latents
    for gradient in slopes:
        here, ours = ours.step(here, gradient)
        # The same loss, of latents that are 7 times as large, and counted 1000 times.
        there, theirs = theirs.step(there, 1000 * gradient / scale)
        torch.testing.assert_close(there, scale * here)


def test_a_schedule_shortens_the_steps() -> None:
    section = OptimiserSection(
        method="sign", learning_rate=0.5, weight_decay=0.0, iterations=2, schedule={"shape": "linear", "end": 0.0}
    )
    latents, gradient, _ = gradients(3)
    once, optimiser = start(section, latents).step(latents, gradient)
    torch.testing.assert_close(once, latents - 0.25 * gradient.sign())
    twice, _ = optimiser.step(once, gradient)
    assert torch.equal(twice, once)
