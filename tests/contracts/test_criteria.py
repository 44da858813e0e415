"""What every loss of ``losses.CLASSIFICATION`` must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnshift.batching import select_rows
from attnshift.losses import CLASSIFICATION
from attnshift.registry import build
from attnshift.types import Goals

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "margin": [{}, {"kappa": 5.0}, {"scale": "dlr"}, {"scale": "dlr", "kappa": 1.0}],
    "distribution": [
        {"distance": distance, "goal": goal} for distance in ("js", "ce") for goal in ("uniform", "peaked")
    ]
    + [{"goal": "uniform", "spare_true": True}],
}
"""Options beyond the defaults to hold a loss to."""

LABELS = torch.tensor([0, 3, 9, 4])
AIMS = (LABELS + 1) % 10
UNTARGETED, TARGETED = Goals(LABELS, None, AIMS), Goals(LABELS, AIMS, None)
CASES = [
    pytest.param(name, options, goals, id=f"{name}{options}{'targeted' if goals is TARGETED else ''}")
    for name in CLASSIFICATION
    for options in OPTIONS.get(name, [{}])
    for goals in (UNTARGETED, TARGETED)
    if goals is UNTARGETED or options.get("goal") != "uniform"
]
with_every_criterion = pytest.mark.parametrize(("name", "options", "goals"), CASES)


def logits(dtype: torch.dtype = torch.float32) -> Tensor:
    """Random logits [4,10] that the true class leads, so that nobody is fooled."""
    drawn = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return drawn.scatter_add(1, LABELS[:, None], torch.full((4, 1), 4.0, dtype=torch.float64)).to(dtype)


@with_every_criterion
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_fp32_value_per_image(name: str, options: dict[str, Any], goals: Goals, dtype: torch.dtype) -> None:
    values = build(CLASSIFICATION, name, options)(logits(dtype), goals)
    assert values.shape == (4,)
    assert values.dtype == torch.float32


@with_every_criterion
@pytest.mark.parametrize("degenerate", ["equal", "sure", "fooled", "huge"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_finite_on_degenerate_logits(
    name: str, options: dict[str, Any], goals: Goals, degenerate: str, dtype: torch.dtype
) -> None:
    zeros = torch.zeros(4, 10)
    values = {
        "equal": zeros,
        "sure": zeros.scatter(1, LABELS[:, None], 1e4),
        "fooled": zeros.scatter(1, AIMS[:, None], 1e4),
        "huge": 1e5 * logits(),
    }[degenerate]
    leaf = values.to(dtype).requires_grad_()
    losses = build(CLASSIFICATION, name, options)(leaf, goals)
    assert losses.isfinite().all()
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    assert gradient.isfinite().all()


@with_every_criterion
def test_it_pushes_every_image_that_is_not_fooled(name: str, options: dict[str, Any], goals: Goals) -> None:
    leaf = logits().requires_grad_()
    (gradient,) = torch.autograd.grad(build(CLASSIFICATION, name, options)(leaf, goals).sum(), leaf)
    assert (gradient.norm(dim=1) > 0).all()


@with_every_criterion
def test_lower_is_more_adversarial(name: str, options: dict[str, Any], goals: Goals) -> None:
    criterion = build(CLASSIFICATION, name, options)
    fooled = torch.zeros(4, 10).scatter(1, AIMS[:, None], 0.1 if options.get("goal") == "uniform" else 5.0)
    assert (criterion(logits(), goals) > criterion(fooled, goals)).all()


@with_every_criterion
def test_batch_mates_change_nothing(name: str, options: dict[str, Any], goals: Goals) -> None:
    criterion, whole = build(CLASSIFICATION, name, options), logits()
    alone = [criterion(whole[at : at + 1], select_rows(goals, slice(at, at + 1))) for at in range(4)]
    torch.testing.assert_close(criterion(whole, goals), torch.cat(alone), rtol=1e-6, atol=0)


@with_every_criterion
def test_gradcheck(name: str, options: dict[str, Any], goals: Goals, monkeypatch: pytest.MonkeyPatch) -> None:
    # Losses compute in fp32, which is too coarse for finite differences: here their casts go to float64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    criterion, leaf = build(CLASSIFICATION, name, options), logits(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda each: criterion(each, goals), (leaf,))
