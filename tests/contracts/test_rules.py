"""What every rule of ``ensemble.RULES`` must do with the gradients of its classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.ensemble import RULES
from attnshift.ensemble.fusion import FusionRule
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy, Margin
from attnshift.registry import build
from attnshift.types import Fused, Goals

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "uniform": [{}, {"scale": "raw"}],
    "weighted": [{"weights": {"model 1": 3.0}}, {"scale": "raw"}],
    "consensus": [{}, {"tau": 10.0, "scale": "raw"}],
    "progress": [{}, {"scale": "raw"}],
    "laggard": [{}, {"temperature": 5.0, "scale": "raw"}],
    "worst": [{}, {"smooth": 1.0}],
    "adaea": [{"step": 0.01}, {"eta": -1.0, "beta": 1.0}],
}
"""Options beyond the defaults to hold a rule to."""

CASES = [pytest.param(name, options, id=f"{name}{options}") for name in RULES for options in OPTIONS.get(name, [{}])]
with_every_rule = pytest.mark.parametrize(("name", "options"), CASES)
LABELS = torch.tensor([0, 1, 2])


def rule(name: str, options: dict[str, Any]) -> FusionRule:
    built = build(RULES, name, options)
    assert isinstance(built, FusionRule)
    return built


class Model:
    """A smooth classifier of 5 classes whose gradient is larger the higher its seed."""

    def __init__(self, seed: int):
        draw = torch.Generator().manual_seed(seed)
        self.name, self.scale = f"model {seed}", 1 + seed
        self.first, self.second = torch.randn(16, 3 * 8 * 8, generator=draw) / 14, torch.randn(5, 16, generator=draw)

    def __call__(self, images: Tensor) -> Tensor:
        return self.scale * (images.flatten(1) @ self.first.T).tanh() @ self.second.T


def images() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def surrogates(*seeds: int, targets: Tensor | None = None) -> Surrogates:
    return Surrogates([Model(seed) for seed in seeds], CrossEntropy(), Goals(LABELS, targets))


def certain(fooled: Sequence[bool]) -> Callable[[Tensor], Tensor]:
    """A classifier that is fooled by far on some images (no margin loss, no gradient), and on others not."""
    other = Model(7)

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
    """Whichever of three is left out, the direction changes, if it had a weight at all."""
    built = rule(name, options if "weights" not in options else {"weights": {}})
    fused = built(surrogates(0, 1, 2), images())
    whole = fused.direction
    assert name == "worst" or (fused.weights > 0).all()
    for left_out, pair in enumerate(((1, 2), (0, 2), (0, 1))):
        if not fused.weights[left_out].any():
            continue
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
def test_targets_have_a_direction_of_their_own(name: str, options: dict[str, Any]) -> None:
    """A small step along it lowers the loss of some model towards the target."""
    models, built = surrogates(0, 1, 2, targets=(LABELS + 2) % 5), rule(name, options)
    fused = built(models, images())
    assert (fused.direction - built(surrogates(0, 1, 2), images()).direction).norm() > 1e-3 * fused.direction.norm()
    norms = fused.direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    after, _ = models.judge(images() - 0.05 * fused.direction / norms)
    assert (after < models.judge(images())[0]).any(0).all()


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
    models = Surrogates([Model(0), certain([True, False, True]), Model(2)], Margin(kappa=50.0), Goals(LABELS))
    gradients, _, _ = models.gradients(images())
    assert (gradients.flatten(2).norm(dim=2) > 0).tolist() == [[True] * 3, [False, True, False], [True] * 3]
    for options in OPTIONS.get(name, [{}]):
        if "weights" in options:
            continue
        check_shares(rule(name, options)(models, images()), name)


def check_shares(fused: Fused, name: str) -> None:
    assert fused.weights[1, 0] == 0
    assert fused.weights[1, 2] == 0
    assert fused.weights[1, 1] > 0 or name == "worst"
    torch.testing.assert_close(fused.weights.sum(0), torch.ones(3))


@with_every_rule
def test_no_gradient_at_all_is_no_direction(name: str, options: dict[str, Any]) -> None:
    options = options if "weights" not in options else {"weights": {}}
    fused = rule(name, options)(Surrogates([certain([True] * 3)] * 2, Margin(), Goals(LABELS)), images())
    assert torch.equal(fused.direction, torch.zeros(3, 3, 8, 8))
    assert torch.equal(fused.weights, torch.zeros(2, 3))


@with_every_rule
def test_latents_serve_as_points(name: str, options: dict[str, Any]) -> None:
    """Through a linear picture of them, whose pull-back is known: a rule that is linear in its gradients agrees."""
    picture = torch.randn(2 * 4 * 4, 3 * 8 * 8, generator=torch.Generator().manual_seed(3)) / 40
    latents = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(4))

    def show(points: Tensor) -> Tensor:
        return 0.5 + (points.flatten(1) @ picture).view(-1, 3, 8, 8)

    models, built = surrogates(0, 1, 2), rule(name, options)
    fused = built(replace(models, show=show), latents)
    assert fused.direction.shape == latents.shape
    if (options.get("scale") == "raw" and name in ("uniform", "weighted", "laggard", "progress")) or name == "logits":
        at_image = built(models, show(latents)).direction
        expected = (at_image.flatten(1) @ picture.T).view_as(latents)
        assert (fused.direction - expected).norm() < 1e-4 * expected.norm()


@with_every_rule
def test_images_may_require_grad(name: str, options: dict[str, Any]) -> None:
    """The attack hands over images that belong to its own graph; the rule must neither cut nor use it."""
    leaf = images().requires_grad_()
    fused = rule(name, options)(surrogates(0, 1), leaf * 1.0)
    assert not fused.direction.requires_grad
    assert leaf.grad is None
