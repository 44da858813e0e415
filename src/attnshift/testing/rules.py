"""The contract of fusion rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations

import torch
from torch import Tensor, nn

from attnshift.batching import select_rows
from attnshift.ensemble import RULES
from attnshift.ensemble.fusion import FusionRule
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy, Margin
from attnshift.registry import check
from attnshift.testing.requirements import require, require_close, require_finite, require_shape
from attnshift.types import Fused, Goals

__all__ = ["RULE_CHECKS", "check_rule", "images", "surrogates"]

_LABELS = torch.tensor([0, 1, 2])


def check_rule(rule: FusionRule) -> None:
    """Hold a fusion rule to its contract, on three made-up classifiers called "model 0", "model 1"
    and "model 2"."""
    check(RULES, type(rule).__name__, rule)
    for each in RULE_CHECKS:
        each(rule)


class _Model:
    """A smooth classifier of 5 classes whose gradient is larger the higher its seed."""

    def __init__(self, seed: int):
        draw = torch.Generator().manual_seed(seed)
        self.name, self.scale = f"model {seed}", 1 + seed
        self.first, self.second = torch.randn(16, 3 * 8 * 8, generator=draw) / 14, torch.randn(5, 16, generator=draw)

    def __call__(self, shown: Tensor) -> Tensor:
        return self.scale * (shown.flatten(1) @ self.first.T).tanh() @ self.second.T


class _Sure(_Model):
    """A classifier that is fooled by far on some images (no margin loss, no gradient), and on
    others not."""

    def __init__(self, seed: int, fooled: Sequence[bool]):
        super().__init__(seed)
        self.fooled = torch.tensor(fooled)[:, None]

    def __call__(self, shown: Tensor) -> Tensor:
        logits = super().__call__(shown)
        wrong = nn.functional.one_hot((_LABELS + 1) % 5, 5) * 100.0 + 0 * logits
        right = nn.functional.one_hot(_LABELS, 5) * 100.0 + logits
        return torch.where(self.fooled, wrong, right)


def images() -> Tensor:
    """Three images of 8 pixels."""
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def surrogates(*seeds: int, targets: Tensor | None = None) -> Surrogates:
    """Smooth classifiers, one for each seed, that see three images."""
    return Surrogates([_Model(seed) for seed in seeds], CrossEntropy(), Goals(_LABELS, targets))


def shares_and_shapes(rule: FusionRule) -> None:
    """A direction like the points, without a graph;
    shares of the models that sum to 1 for each image."""
    fused = rule(surrogates(0, 1, 2), images())
    require_shape(fused.direction, (3, 3, 8, 8), "the direction")
    require(fused.direction.dtype == torch.float32, f"the direction is {fused.direction.dtype}, not float32")
    require(not fused.direction.requires_grad, "the direction has a graph")
    for name in ("weights", "losses", "margins"):
        require_shape(getattr(fused, name), (3, 3), name)
        require_finite(getattr(fused, name), name)
    require((fused.weights >= 0).all(), "a weight is negative")
    require_close(fused.weights.sum(0), torch.ones(3), "the weights of an image do not sum to 1")


def order_of_classifiers_does_not_matter(rule: FusionRule) -> None:
    expected = rule(surrogates(0, 1, 2), images())
    for order in permutations(range(3)):
        fused = rule(surrogates(*order), images())
        sentence = f"the order {order} of the classifiers changes the "
        require_close(fused.direction, expected.direction, sentence + "direction")
        for name in ("weights", "losses", "margins"):
            require_close(getattr(fused, name), getattr(expected, name)[list(order)], sentence + name)


def every_classifier_counts(rule: FusionRule) -> None:
    """Whichever of three is left out, the direction changes, if it had a weight at all."""
    fused = rule(surrogates(0, 1, 2), images())
    for left_out, pair in enumerate(((1, 2), (0, 2), (0, 1))):
        if not fused.weights[left_out].any():
            continue
        try:
            rest = rule(surrogates(*pair), images())
        except RecipeError:
            # Its options name the classifier that is left out.
            continue
        changed = (rest.direction - fused.direction).norm() > 1e-3 * fused.direction.norm()
        require(changed, f"model {left_out} has a weight, and without it the direction is the same")


def one_classifier_is_its_own_direction(rule: FusionRule) -> None:
    alone = surrogates(1)
    gradients, losses, margins = alone.gradients(images())
    fused = rule(alone, images())
    sentence = "with one classifier the {} should be its own"
    require_close(fused.direction, gradients[0], sentence.format("direction"), atol=1e-8)
    require_close(fused.weights, torch.ones(1, 3), "the only classifier should have the weight 1")
    require_close(fused.losses, losses, sentence.format("losses"))
    require_close(fused.margins, margins, sentence.format("margins"))


def targets_have_a_direction_of_their_own(rule: FusionRule) -> None:
    """A small step along it lowers the loss of some model towards the target."""
    models = surrogates(0, 1, 2, targets=(_LABELS + 2) % 5)
    fused = rule(models, images())
    other = rule(surrogates(0, 1, 2), images())
    apart = (fused.direction - other.direction).norm() > 1e-3 * fused.direction.norm()
    require(apart, "targets do not change the direction")
    norms = fused.direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    after, _ = models.judge(images() - 0.05 * fused.direction / norms)
    require((after < models.judge(images())[0]).any(0).all(), "a step against the direction lowers no model's loss")


def batch_mates_change_no_direction(rule: FusionRule) -> None:
    models = surrogates(0, 1, 2)
    together = rule(models, images())
    for image in range(3):
        fused = rule(select_rows(models, torch.tensor([image])), images()[image : image + 1])
        expected = together.direction[image]
        close = (fused.direction[0] - expected).norm() < 1e-5 * expected.norm()
        require(close, "an image has another direction when it is alone")
        require_close(fused.weights[:, 0], together.weights[:, image], "an image has other weights when it is alone")


def models_without_gradient_have_no_weight(rule: FusionRule) -> None:
    """Model 1 is fooled on two of three images by more than the loss asks for."""
    models = Surrogates([_Model(0), _Sure(1, [True, False, True]), _Model(2)], Margin(kappa=50.0), Goals(_LABELS))
    weights = rule(models, images()).weights
    require(not weights[1, [0, 2]].any(), "a model without a gradient has a weight")
    require_close(weights.sum(0), torch.ones(3), "the weights of an image do not sum to 1")


def no_gradient_is_no_direction(rule: FusionRule) -> None:
    fooled = [True] * 3
    fused = rule(Surrogates([_Sure(1, fooled), _Sure(2, fooled)], Margin(), Goals(_LABELS)), images())
    require(not fused.direction.any(), "there is a direction where no model has a gradient")
    require(not fused.weights.any(), "there are weights where no model has a gradient")


def latents_serve_as_points(rule: FusionRule) -> None:
    latents = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(4))
    fused = rule(replace(surrogates(0, 1, 2), show=picture), latents)
    require_shape(fused.direction, (3, 2, 4, 4), "the direction at latents")
    require_finite(fused.direction, "the direction at latents")


def picture(latents: Tensor) -> Tensor:
    """A linear image [batch,3,8,8] of latents [batch,2,4,4]."""
    return 0.5 + (latents.flatten(1) @ pixels_of_latents()).view(-1, 3, 8, 8)


def pixels_of_latents() -> Tensor:
    """The matrix of ``picture``, [2*4*4,3*8*8]."""
    return torch.randn(2 * 4 * 4, 3 * 8 * 8, generator=torch.Generator().manual_seed(3)) / 40


def points_may_belong_to_a_graph(rule: FusionRule) -> None:
    """The attack hands over images that belong to its own graph;
    the rule must neither cut nor use it."""
    leaf = images().requires_grad_()
    fused = rule(surrogates(0, 1, 2), leaf * 1.0)
    require(not fused.direction.requires_grad, "the direction belongs to the graph of the points")
    require(leaf.grad is None, "the rule has run a backward pass into the graph of the points")


def its_state_is_taken_back(rule: FusionRule) -> None:
    """What ``Fused.state`` holds has a row for each image and is accepted in the next iteration."""
    first: Fused = rule(surrogates(0, 1, 2), images())
    if first.state is not None:
        require(len(first.state) == 3, f"the state has {len(first.state)} rows for 3 images")
        second = rule(surrogates(0, 1, 2), images(), first.state)
        require_finite(second.direction, "the direction in the second iteration")


RULE_CHECKS: tuple[Callable[[FusionRule], None], ...] = (
    shares_and_shapes,
    order_of_classifiers_does_not_matter,
    every_classifier_counts,
    one_classifier_is_its_own_direction,
    targets_have_a_direction_of_their_own,
    batch_mates_change_no_direction,
    models_without_gradient_have_no_weight,
    no_gradient_is_no_direction,
    latents_serve_as_points,
    points_may_belong_to_a_graph,
    its_state_is_taken_back,
)
"""All that ``check_rule`` tries."""
