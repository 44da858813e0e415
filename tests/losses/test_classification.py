"""Losses on logits against calculations by hand."""

from __future__ import annotations

import math

import pytest
import torch

from attnshift.losses.classification import CrossEntropy, Margin, margins
from attnshift.types import Goals

LOGITS = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 2.0, 1.5, 1.0], [1.0, 1.0, 0.0, -1.0]])
LABELS = Goals(torch.tensor([0, 2, 0]))
MARGINS = [2.0, -0.5, 0.0]


def test_margins() -> None:
    assert margins(LOGITS, LABELS).tolist() == MARGINS


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
