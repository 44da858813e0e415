"""What every rule of ``ensemble.RULES`` must do with the gradients of its classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.ensemble import RULES
from attnshift.ensemble.fusion import FusionRule
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy, Margin
from attnshift.tables import build
from attnshift.types import Goals

OPTIONS: dict[str, list[dict[str, Any]]] = {"uniform": [{}, {"normalise": False}]}
"""Options beyond the defaults to hold a rule to."""

CASES = [pytest.param(name, options, id=f"{name}{options}") for name in RULES for options in OPTIONS.get(name, [{}])]
with_every_rule = pytest.mark.parametrize(("name", "options"), CASES)
LABELS = torch.tensor([0, 1, 2])


def rule(name: str, options: dict[str, Any]) -> FusionRule:
    built = build(RULES, "fusion rule", name, options)
    assert isinstance(built, FusionRule)
    return built


def model(seed: int) -> Callable[[Tensor], Tensor]:
    """A smooth classifier of 5 classes whose gradient is larger the higher its seed."""
    draw = torch.Generator().manual_seed(seed)
    first, second = torch.randn(16, 3 * 8 * 8, generator=draw) / 14, torch.randn(5, 16, generator=draw)
    return lambda images: (1 + seed) * (images.flatten(1) @ first.T).tanh() @ second.T


def images() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def surrogates(*seeds: int) -> Surrogates:
    return Surrogates([model(seed) for seed in seeds], CrossEntropy(), Goals(LABELS))


def certain(fooled: Sequence[bool]) -> Callable[[Tensor], Tensor]:
    """A classifier that is fooled by far on some images (no margin loss, no gradient), and on others not."""
    other = model(7)

    def classify(shown: Tensor) -> Tensor:
        logits = other(shown)
        wrong = nn.functional.one_hot((LABELS + 1) % 5, 5) * 100.0 + 0 * logits
        right = nn.functional.one_hot(LABELS, 5) * 100.0 + logits
        return torch.where(torch.tensor(fooled)[:, None], wrong, right)

    return classify


@with_every_rule
def test_shapes_and_shares(name: str, options: dict[str, Any]) -> None:
    shown = images()
    fused = rule(name, options)(surrogates(0, 1, 2), shown)
    assert fused.direction.shape == shown.shape
    assert fused.direction.dtype == torch.float32
    for each in (fused.weights, fused.losses, fused.margins):
        assert each.shape == (3, 3)
        assert each.isfinite().all()
    torch.testing.assert_close(fused.weights.sum(0), torch.ones(3))
    assert (fused.weights >= 0).all()
    assert not fused.direction.requires_grad
    assert not shown.requires_grad


@with_every_rule
def test_order_of_classifiers_does_not_matter(name: str, options: dict[str, Any]) -> None:
    built = rule(name, options)
    expected = built(surrogates(0, 1, 2), images())
    for order in permutations(range(3)):
        fused = built(surrogates(*order), images())
        torch.testing.assert_close(fused.direction, expected.direction, rtol=1e-5, atol=1e-6)
        for seen, wanted in (
            (fused.weights, expected.weights),
            (fused.losses, expected.losses),
            (fused.margins, expected.margins),
        ):
            torch.testing.assert_close(seen, wanted[list(order)], rtol=1e-5, atol=1e-6)


@with_every_rule
def test_every_classifier_counts(name: str, options: dict[str, Any]) -> None:
    """Whichever of three is left out, the direction changes."""
    built = rule(name, options)
    whole = built(surrogates(0, 1, 2), images()).direction
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert (built(surrogates(*pair), images()).direction - whole).norm() > 1e-3 * whole.norm()


@with_every_rule
def test_one_classifier_is_its_own_direction(name: str, options: dict[str, Any]) -> None:
    alone = surrogates(1)
    gradients, losses, margins = alone.gradients(images())
    fused = rule(name, options)(alone, images())
    torch.testing.assert_close(fused.direction, gradients[0], rtol=1e-5, atol=1e-8)
    assert torch.equal(fused.weights, torch.ones(1, 3))
    torch.testing.assert_close(fused.losses, losses)
    torch.testing.assert_close(fused.margins, margins)


@with_every_rule
def test_batch_mates_change_nothing(name: str, options: dict[str, Any]) -> None:
    built, models = rule(name, options), surrogates(0, 1, 2)
    together = built(models, images())
    for image in range(3):
        fused = built(models.rows(torch.tensor([image])), images()[image : image + 1])
        expected = together.direction[image]
        assert (fused.direction[0] - expected).norm() < 1e-5 * expected.norm()
        torch.testing.assert_close(fused.weights[:, 0], together.weights[:, image], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", RULES)
def test_models_without_gradient_get_no_weight_where_they_have_none(name: str) -> None:
    models = Surrogates([model(0), certain([True, False, True]), model(2)], Margin(kappa=50.0), Goals(LABELS))
    gradients, _, _ = models.gradients(images())
    assert (gradients.flatten(2).norm(dim=2) > 0).tolist() == [[True] * 3, [False, True, False], [True] * 3]
    fused = rule(name, {})(models, images())
    assert fused.weights[1, 0] == 0
    assert fused.weights[1, 2] == 0
    assert fused.weights[1, 1] > 0
    torch.testing.assert_close(fused.weights.sum(0), torch.ones(3))


@with_every_rule
def test_no_gradient_at_all_is_no_direction(name: str, options: dict[str, Any]) -> None:
    fused = rule(name, options)(Surrogates([certain([True] * 3)] * 2, Margin(), Goals(LABELS)), images())
    assert torch.equal(fused.direction, torch.zeros(3, 3, 8, 8))
    assert fused.weights.isfinite().all()


@with_every_rule
def test_images_may_require_grad(name: str, options: dict[str, Any]) -> None:
    """The attack hands over images that belong to its own graph; the rule must neither cut nor use it."""
    leaf = images().requires_grad_()
    fused = rule(name, options)(surrogates(0, 1), leaf * 1.0)
    assert not fused.direction.requires_grad
    assert leaf.grad is None
