"""The budget of naturalness: its shares, and the search for its edge."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnshift.errors import RecipeError
from attnshift.metrics.budget import Budget, furthest_kept


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()


def test_what_is_spent_is_0_for_equal_images_and_1_at_the_limit() -> None:
    distance = Budget.of("linf", 0.2)
    torch.testing.assert_close(distance.spent(grey(0.5, 0.5), grey(0.5, 0.6)), torch.tensor([0.0, 0.5]))
    similarity = Budget.of("ssim", 0.8)
    assert similarity.spent(grey(0.5), grey(0.5)).item() == pytest.approx(0, abs=1e-4)
    assert replace(similarity, metric=lambda *_: torch.tensor([0.8])).spent(grey(0.5), grey(0.5)) == pytest.approx(1)


def test_several_metrics_are_all_kept_and_the_greatest_share_is_spent() -> None:
    both = Budget.of("linf", 0.2, {"l2": 2.0})
    few, all_ = grey(0.5).clone(), grey(0.5) + 0.05
    few[0, :, 0, 0] += 0.15
    length = 0.05 * few[0].numel() ** 0.5
    found = both.spent(grey(0.5, 0.5), torch.cat([few, all_]))
    torch.testing.assert_close(found, torch.tensor([0.75, length / 2]))
    assert both.differentiable is False
    assert Budget.of("l2", 2.0, {"ssim": 0.9}).differentiable


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


def test_the_edge_is_found_inside_and_beyond_the_edit_and_never_passed() -> None:
    images, change = grey(0.5, 0.5, 0.5), torch.tensor([0.4, 0.04, 0.001]).view(-1, 1, 1, 1)
    budget = Budget.of("linf", 0.1)
    strengths, found = furthest_kept(
        budget, images, images, lambda each, rows: images[rows] + each.view(-1, 1, 1, 1) * change[rows]
    )
    torch.testing.assert_close(strengths[:2], torch.tensor([0.25, 2.5]), rtol=0.02, atol=0)
    assert strengths[2] == pytest.approx(4, rel=0.01), "the search goes no further than four times the edit"
    assert budget.keeps(images, found).all()


def test_an_image_is_tried_until_its_budget_is_spent_whatever_its_mates_need() -> None:
    images, tried = grey(0.5, 0.5), []
    change = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * grey(0.062, 0.03)

    def show(strengths: Tensor, rows: Tensor) -> Tensor:
        tried.extend(rows.tolist())
        return images[rows] + strengths.view(-1, 1, 1, 1) * change[rows]

    budget = replace(Budget.of("l2", 2.0), metric=lambda one, other: (one - other).square().flatten(1).sum(1))
    together = furthest_kept(budget, images, images, show)
    trials = [tried.count(each) for each in (0, 1)]
    assert trials[0] < trials[1] < 7
    for each in (0, 1):
        tried.clear()
        one = slice(each, each + 1)
        alone = furthest_kept(
            budget, images[one], images[one], lambda strengths, rows, at=each: show(strengths, rows + at)
        )
        assert len(tried) == trials[each]
        assert torch.equal(together[0][one], alone[0])
        assert torch.equal(together[1][one], alone[1])
    assert (budget.spent_by_files(images, together[1]) > 0.99).all()


def test_where_the_start_breaks_the_limit_the_image_itself_comes_back() -> None:
    strengths, found = furthest_kept(Budget.of("linf", 0.1), grey(0.5), grey(0.9), lambda *_: grey(0.9))
    assert strengths.tolist() == [0]
    assert torch.equal(found, grey(0.5))
