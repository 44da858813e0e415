"""Losses on logits against calculations by hand."""

from __future__ import annotations

import math

import pytest
import torch

from attnshift.batching import select_rows
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy, Distribution, Margin, margins
from attnshift.types import Goals

LOGITS = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 2.0, 1.5, 1.0], [1.0, 1.0, 0.0, -1.0]])
LABELS = Goals(torch.tensor([0, 2, 0]))
TARGETED = Goals(LABELS.labels, torch.tensor([1, 1, 2]))
MARGINS = [2.0, -0.5, 0.0]


def test_margins() -> None:
    assert margins(LOGITS, LABELS).tolist() == MARGINS


def test_margins_of_targets() -> None:
    assert margins(LOGITS, TARGETED).tolist() == [2.0, -0.5, 1.0]


@pytest.mark.parametrize("goals", [LABELS, TARGETED])
def test_a_margin_is_negative_where_the_prediction_is_what_is_wanted(goals: Goals) -> None:
    logits = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    many = select_rows(goals, torch.arange(300) % 3)
    reached = many.achieved(logits.argmax(1))
    assert torch.equal(margins(logits, many) < 0, reached)
    assert 0 < reached.sum() < 300


def test_cross_entropy() -> None:
    expected = [
        math.log(math.exp(row[label]) / sum(map(math.exp, row)))
        for row, label in zip(LOGITS.tolist(), LABELS.labels.tolist(), strict=True)
    ]
    assert CrossEntropy()(LOGITS, LABELS).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kappa", "expected"), [(0.0, [2.0, 0.0, 0.0]), (0.3, [2.3, 0.0, 0.3]), (1.0, [3.0, 0.5, 1.0])]
)
def test_margin(kappa: float, expected: list[float]) -> None:
    assert Margin(kappa)(LOGITS, LABELS).tolist() == pytest.approx(expected)


def test_dlr_divides_by_the_spread_of_the_three_highest() -> None:
    spreads = [3.0 - 0.5, 2.0 - 1.0, 1.0 - 0.0]
    expected = [max(margin / spread + 1.0, 0) for margin, spread in zip(MARGINS, spreads, strict=True)]
    assert Margin(1.0, "dlr")(LOGITS, LABELS).tolist() == pytest.approx(expected)


def test_dlr_does_not_see_the_scale_of_the_logits() -> None:
    loss = Margin(0.5, "dlr")
    torch.testing.assert_close(loss(37 * LOGITS + 5, LABELS), loss(LOGITS, LABELS), rtol=1e-4, atol=1e-5)


def test_margin_has_no_gradient_once_fooled_by_kappa() -> None:
    leaf = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Margin(0.3)(leaf, LABELS).sum(), leaf)
    assert torch.equal(gradient[1], torch.zeros(4))
    assert gradient[0].tolist() == [1.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize(("goals", "needed", "kind"), [(LABELS, 3, "an untargeted"), (TARGETED, 4, "a targeted")])
def test_dlr_with_too_few_classes(goals: Goals, needed: int, kind: str) -> None:
    logits = torch.randn(3, needed, generator=torch.Generator().manual_seed(0))
    few = Goals(torch.zeros(3, dtype=torch.long), None if goals.targets is None else torch.ones(3, dtype=torch.long))
    assert Margin(scale="dlr")(logits, few).isfinite().all()
    with pytest.raises(RecipeError, match=rf"needs {needed} classes in {kind} attack, and there are {needed - 1}; use"):
        Margin(scale="dlr")(logits[:, 1:], few)
    assert Margin()(logits[:, -2:], few).isfinite().all(), "two classes are enough for plain logits"


def test_a_uniform_distribution_is_no_way_to_a_target() -> None:
    with pytest.raises(RecipeError, match="goal 'uniform' aims at no class; use goal 'peaked'"):
        Distribution()(LOGITS, TARGETED)
