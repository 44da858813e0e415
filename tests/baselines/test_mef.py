"""MEF: its formulas written anew, MI-FGSM as its special case, and its draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnshift.attack.effort import Effort
from attnshift.baselines.mef import MEF
from attnshift.baselines.pixel import MIFGSM
from attnshift.baselines.sign_steps import uniform_offsets
from attnshift.batching import select_rows
from attnshift.classifiers import load_classifier
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy
from attnshift.types import Goals, RandomKey
from lab_scenes import rendered

LABELS, KEY = (3, 7), RandomKey(0, ("a", "b"), 0)
EPSILON, STEP = 0.04, 0.01


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rendered(LABELS).images


@pytest.fixture(scope="module")
def surrogates() -> Surrogates:
    return Surrogates([load_classifier("lab:resnet")], CrossEntropy(), Goals.of(LABELS, (None, None)))


@pytest.mark.parametrize("fusion", ["logits", "progress"])
def test_one_neighbour_without_radii_is_mifgsm(surrogates: Surrogates, images: Tensor, fusion: str) -> None:
    still = MEF(neighbours=1, spread=0.0, shift=0.0, steps=4, fusion=fusion)
    usual = MIFGSM(decay=0.5, steps=4, step_size=still.step_size, fusion=fusion)
    assert torch.equal(still(surrogates, images, KEY), usual(surrogates, images, KEY))


@pytest.mark.parametrize("inverted", [False, True])
def test_it_is_what_the_formulas_say(surrogates: Surrogates, images: Tensor, inverted: bool) -> None:
    """In terms of the rising cross-entropy, as the paper counts."""
    (classifier,), labels = surrogates.classifiers, surrogates.goals.labels

    def slope(points: Tensor) -> Tensor:
        leaf = points.clone().requires_grad_()
        torch.nn.functional.cross_entropy(classifier(leaf.clamp(0, 1)), labels, reduction="sum").backward()
        assert leaf.grad is not None
        return leaf.grad

    def sized(gradient: Tensor) -> Tensor:
        return gradient / gradient.abs().mean((1, 2, 3), keepdim=True)

    delta, momentum, inner = torch.zeros_like(images), torch.zeros_like(images), [torch.zeros_like(images)] * 2
    for iteration in range(2):
        gradients = []
        for at in range(2):
            drawn = 2 * EPSILON * uniform_offsets(images, KEY, iteration, "neighbour", at)
            shifted = images + delta + drawn + (-1 if inverted else 1) * 0.15 * EPSILON * inner[at]
            gradients.append(slope(shifted))
            inner[at] = sized(gradients[at]) - 0.9 * inner[at]
        momentum = 0.5 * momentum + sized(gradients[0] + gradients[1])
        delta = (images + (delta + STEP * momentum.sign()).clamp(-EPSILON, EPSILON)).clamp(0, 1) - images
    attack = MEF(epsilon=EPSILON, step_size=STEP, steps=2, neighbours=2, inverted=inverted)
    found = attack(surrogates, images, KEY)
    assert ((found - images - delta).abs() < 1e-5).float().mean() > 0.98
    other = replace(attack, inverted=not inverted)(surrogates, images, KEY)
    assert ((other - images - delta).abs() < 1e-5).float().mean() < 0.98


def test_draws_belong_to_seed_image_iteration_and_neighbour() -> None:
    images = torch.zeros(2, 3, 4, 4)
    first = uniform_offsets(images, KEY, 0, "neighbour", 1)
    assert -1 <= first.min() < -0.5 < 0.5 < first.max() <= 1
    assert torch.equal(uniform_offsets(images[1:], select_rows(KEY, slice(1, 2)), 0, "neighbour", 1), first[1:])
    others = (
        uniform_offsets(images, replace(KEY, seed=1), 0, "neighbour", 1),
        uniform_offsets(images, KEY, 1, "neighbour", 1),
        uniform_offsets(images, KEY, 0, "neighbour", 2),
    )
    assert all(not torch.equal(first, each) for each in others)


def test_it_fools_and_asks_for_a_gradient_at_each_neighbour(surrogates: Surrogates, images: Tensor) -> None:
    effort = Effort()
    attack = MEF(steps=6, step_size=0.02, neighbours=3)
    found = attack(effort.of_surrogates(surrogates), images, KEY)
    assert effort.gradients == 6 * 3 * 2
    assert (surrogates.judge(found)[1] < 0).all()
    assert 0 < (found - images).abs().max() <= attack.epsilon + 1e-6
