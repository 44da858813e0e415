"""Attacks on pixels: what their papers say, step by step, and an image by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnshift.baselines import BASELINES
from attnshift.baselines.kinds import Baseline
from attnshift.baselines.pixel import MIFGSM, PGD, AdaptiveEnsembleAttack
from attnshift.batching import select_rows
from attnshift.classifiers import load_classifier
from attnshift.ensemble.blending import AdaEA
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy
from attnshift.types import Goals, RandomKey
from lab_scenes import rendered
from tiers import fast_first

OWN = ("pgd", "mifgsm", "adaea")
LABELS = (3, 7, 1)
KEY = RandomKey(0, ("a", "b", "c"), 0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rendered(LABELS).images


@pytest.fixture(scope="module")
def surrogates() -> Surrogates:
    classifiers = [load_classifier(f"lab:{name}") for name in ("resnet", "mobilevit")]
    return Surrogates(classifiers, CrossEntropy(), Goals.of(LABELS, (None, None, None)))


def mean_logits_gradient(surrogates: Surrogates, images: Tensor) -> Tensor:
    """Of the cross-entropy of the true class under the mean of the logits."""
    images = images.detach().requires_grad_()
    logits = torch.stack([classifier(images) for classifier in surrogates.classifiers]).mean(0)
    loss = torch.nn.functional.cross_entropy(logits, surrogates.goals.labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("name", fast_first(OWN, 2))
def test_it_stays_near_the_image_and_fools_what_it_attacks(surrogates: Surrogates, images: Tensor, name: str) -> None:
    attack: Baseline = BASELINES[name].load()(epsilon=0.05)
    attacked = attack(surrogates, images, KEY)
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert 0.04 < (attacked - images).abs().max() <= 0.05 + 1e-6
    assert (surrogates.judge(images)[1] > 0).all()
    assert (surrogates.judge(attacked)[1].mean(0) < 0).all(), "on average: a rule may content itself with one"


def test_a_step_of_pgd_follows_the_sign(surrogates: Surrogates, images: Tensor) -> None:
    attack = PGD(epsilon=0.02, steps=1, step_size=0.015)
    offsets = attack(surrogates, images, KEY) - images
    others = attack(surrogates, images, replace(KEY, seed=1)) - images
    assert (offsets - others).abs().max() > 0.005, "the start is drawn by the seed"

    inside = (images > 0.1) & (images < 0.9)
    start = PGD(epsilon=0.02, steps=1, step_size=1e-9)(surrogates, images, KEY)
    expected = start + 0.015 * mean_logits_gradient(surrogates, start).sign()
    expected = expected.clamp(images - 0.02, images + 0.02)
    assert (attack(surrogates, images, KEY) - expected)[inside].abs().median() == 0
    agree = ((attack(surrogates, images, KEY) - expected)[inside].abs() < 1e-6).float().mean()
    assert agree > 0.999


def test_mifgsm_is_algorithm_1(surrogates: Surrogates, images: Tensor) -> None:
    """Written anew: the accumulated gradient, each of L1 norm 1, and steps of epsilon / T."""
    epsilon, steps = 0.04, 3
    points, momentum = images, torch.zeros_like(images)
    for _ in range(steps):
        gradient = mean_logits_gradient(surrogates, points)
        momentum = 0.9 * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        points = (points + epsilon / steps * momentum.sign()).clamp(0, 1)
    found = MIFGSM(epsilon=epsilon, steps=steps, decay=0.9)(surrogates, images, KEY)
    assert ((found - points).abs() < 1e-6).float().mean() > 0.999


def test_adaea_goes_where_its_rule_points(surrogates: Surrogates, images: Tensor) -> None:
    step = AdaptiveEnsembleAttack(epsilon=0.04, steps=1)(surrogates, images, KEY)
    direction = AdaEA()(surrogates, images).direction
    assert torch.equal(step, (images - 0.04 * direction.sign()).clamp(0, 1).clamp(images - 0.04, images + 0.04))
    assert (direction == 0).any(), "its filter leaves positions out"


@pytest.mark.parametrize("name", OWN)
def test_an_image_is_attacked_as_if_alone(surrogates: Surrogates, images: Tensor, name: str) -> None:
    attack: Baseline = BASELINES[name].load()(epsilon=0.03, steps=1)
    together = attack(surrogates, images, KEY)
    for place, id in enumerate(KEY.ids):
        rows = torch.tensor([place])
        alone = attack(select_rows(surrogates, rows), images[rows], RandomKey(0, (id,), 0))
        assert ((alone[0] - together[place]).abs() < 1e-5).float().mean() > 0.999


def test_a_strength_of_its_own_is_a_radius_and_a_step_of_its_own(surrogates: Surrogates, images: Tensor) -> None:
    attack = PGD(epsilon=0.04, step_size=0.02, steps=1)
    strengths = torch.tensor([0.5, 2.0, 1.0])
    together = attack.at_strengths(surrogates, images, KEY, strengths)
    apart = Baseline.at_strengths(attack, surrogates, images, KEY, strengths)
    assert ((together - apart).abs() < 1e-5).float().mean() > 0.999
    assert attack.scaled(0.5) == PGD(epsilon=0.02, step_size=0.01, steps=1)


@pytest.mark.heavy
@pytest.mark.parametrize("name", OWN)
def test_a_target_is_what_it_goes_for(surrogates: Surrogates, images: Tensor, name: str) -> None:
    targeted = replace(surrogates, goals=Goals.of(LABELS, (4, 4, 4)))
    attack: Baseline = BASELINES[name].load()(epsilon=0.1, step_size=0.01, steps=20)
    attacked = attack(targeted, images, KEY)
    assert (surrogates.logits(attacked).mean(0).argmax(1) == 4).all()


def test_a_rule_that_does_not_exist_is_refused_at_once(surrogates: Surrogates, images: Tensor) -> None:
    with pytest.raises(RecipeError, match="did you mean 'logits'"):
        PGD(fusion="logit").check(surrogates, images)
    with pytest.raises(RecipeError, match="stranger, which is no surrogate"):
        PGD(fusion="weighted", fusion_options={"weights": {"stranger": 1.0}}).check(surrogates, images)
