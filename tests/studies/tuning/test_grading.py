"""What a score means: successes first, and a slope where there are none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attnshift.studies.tuning import grade


def test_the_score_by_hand() -> None:
    """Two classifiers, four images: 3 of 8 verdicts succeed, one of them on an image that is not similar enough."""
    right = torch.tensor([[True, True, True, False], [True, True, False, True]])
    reached = torch.tensor([[True, False, True, True], [False, False, False, True]])
    margin = torch.tensor([[-10.0, 5.0, -20.0, -30.0], [2.0, 40.0, 1.0, -5.0]])
    similarity = torch.tensor([0.75, 0.5, 0.25, 1.0])
    result = grade(right, reached, margin, similarity, floor=0.5)

    def s(value: float) -> float:
        return (1 - math.tanh(value / 10)) / 2

    slope = s(-10) + s(5) + (0.25 - 0.5) / 1.5 + 0 + s(2) + s(40) + 0 + s(-5)
    assert result.success == pytest.approx(3 / 8)
    assert result.success_with_floor == pytest.approx(2 / 8)
    assert result.ssim == pytest.approx(0.625)
    assert result.score == pytest.approx(2 / 8 + slope / 8 / 16)


@pytest.mark.parametrize(("models", "images"), [(1, 1), (1, 5), (3, 4)])
def test_one_more_success_outweighs_everything_else(models: int, images: int) -> None:
    """Of two grades on the same images the one with more successes is higher, however extreme the rest is."""
    generator = torch.Generator().manual_seed(0)

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    compared = 0
    for _ in range(400):
        right = chance(models, images) < 0.8
        found = []
        for _ in range(2):
            reached = chance(models, images) < 0.5
            size = torch.where(chance(models, images) < 0.5, 1e-3, 1e3)
            similarity = torch.where(chance(images) < 0.5, 0.9 + 0.1 * chance(images).round(), -1.0)
            result = grade(right, reached, torch.where(reached, -size, size), similarity, floor=0.9)
            found.append((round(result.success_with_floor * right.numel()), result.score))
        (fewer, low), (more, high) = sorted(found)
        compared += more > fewer
        assert high > low or more == fewer
    assert compared > 50


def test_the_score_has_a_slope_while_nothing_succeeds() -> None:
    """Nearer to the boundary is better, more similar is better below the floor, and any similar image above that."""
    one = torch.ones(1, 1, dtype=torch.bool)
    steps = [(8.0, 0.2), (8.0, 0.6), (8.0, 0.95), (3.0, 0.95)]
    scores = [grade(one, ~one, torch.tensor([[m]]), torch.tensor([q]), floor=0.9).score for m, q in steps]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
