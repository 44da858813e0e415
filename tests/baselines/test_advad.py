"""AdvAD: the path without noise against the published one with it, its bounds, and its two relations to FGSM."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attnshift.attack.effort import Effort
from attnshift.baselines import BASELINES
from attnshift.baselines.advad import AdvAD, AdvADX
from attnshift.baselines.advad_path import LogOthers, climb, noise_ratios
from attnshift.baselines.kinds import Baseline
from attnshift.baselines.rounding import dithered, nearest_within
from attnshift.batching import select_rows
from attnshift.classifiers import load_classifier
from attnshift.classifiers.gradcam import grad_cam
from attnshift.data.images import quantise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import ModelError, RecipeError
from attnshift.losses.classification import CrossEntropy
from attnshift.metrics.budget import Budget
from attnshift.registry import build
from attnshift.types import Goals, RandomKey
from lab_scenes import rendered

KEY, ONES = RandomKey(0, ("a", "b"), 0), torch.ones(2, dtype=torch.float64)
LABELS = [3, 7]


class Curved:
    """A smooth classifier in float64: four classes, without a matrix product that mixes images."""

    def __init__(self, scale: float = 1.0):
        draw = torch.Generator().manual_seed(0)
        self.first = torch.randn(20, 3 * 8 * 8, generator=draw, dtype=torch.float64)
        self.second = scale * torch.randn(4, 20, generator=draw, dtype=torch.float64)

    def __call__(self, images: Tensor) -> Tensor:
        return (images.flatten(1).double() @ self.first.T / 8).tanh() @ self.second.T


@pytest.fixture(scope="module")
def small() -> Tensor:
    return 0.2 + 0.6 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return quantise(rendered(LABELS).images)


@pytest.fixture(scope="module")
def surrogates() -> Surrogates:
    pair = [load_classifier("lab:resnet"), load_classifier("lab:mobilevit")]
    return Surrogates(pair, CrossEntropy(), Goals.of(LABELS, [None, None]))


def on(classifier: object, labels: list[int], targets: list[int] | None = None) -> Surrogates:
    goals = Goals(torch.tensor(labels), None if targets is None else torch.tensor(targets))
    return Surrogates([classifier], CrossEntropy(), goals)  # type: ignore[list-item]


def published(surrogates: Surrogates, x: Tensor, radius: float, steps: int, noise: Tensor) -> Tensor:
    """The recursion of the paper, with its noise, in values from -1 to 1."""
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[:: -(-1000 // steps)]
    levels = [*alphas.flip(0), torch.tensor(1.0, dtype=torch.float64)]
    limit = 2 * radius / ((1 - levels[0]) / levels[0]).sqrt()
    noisy, e = levels[0].sqrt() * (2 * x - 1) + (1 - levels[0]).sqrt() * noise, noise
    for here, below in pairwise(levels):
        leaf = noisy.clone().requires_grad_()
        preview = (leaf - (1 - here).sqrt() * e) / here.sqrt()
        chances = surrogates.classifiers[0](preview / 2 + 0.5).softmax(1)
        goals = surrogates.goals
        if goals.targets is None:
            raised = (1 - chances.gather(1, goals.labels[:, None])).log().sum()
        else:
            raised = chances.gather(1, goals.targets[:, None]).log().sum()
        (slope,) = torch.autograd.grad(raised, leaf)
        guided = noise - (1 - here).sqrt() * slope
        e = noise + (guided - noise).clamp(-limit, limit)
        clean = (noisy - (1 - here).sqrt() * e) / here.sqrt()
        noisy = below.sqrt() * clean + (1 - below).sqrt() * e
    return noisy / 2 + 0.5


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("targets", [None, [2, 1]])
def test_it_is_the_published_path_whatever_its_noise(small: Tensor, steps: int, targets: list[int] | None) -> None:
    surrogates = on(Curved(), [0, 3], targets)
    found = AdvAD(epsilon=0.05, steps=steps).at_strengths(surrogates, small, KEY, ONES)
    assert (found - small).abs().max() > 0.01
    for seed in range(2):
        noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = published(surrogates, small, 0.05, steps, noise)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_levels_are_those_of_the_paper() -> None:
    assert [round(noise_ratios(steps)[0], 1) for steps in (1000, 100, 10)] == [157.4, 143.8, 60.8]
    for steps in (1, 7, 10, 1000):
        ratios = noise_ratios(steps)
        assert len(ratios) == steps + 1
        assert ratios[-1] == 0
        assert list(ratios) == sorted(ratios, reverse=True)


def test_the_result_is_the_sum_of_its_clipped_steps(small: Tensor) -> None:
    seen: list[Tensor] = []
    ratios = (3.0, 1.0, 0.5, 0.0)

    def slopes(step: int, points: Tensor) -> Tensor:
        assert step == len(seen)
        seen.append(points)
        return (points - 0.5) * 0.1

    end = climb(small, torch.tensor([0.02, 0.05], dtype=torch.float64), ratios, slopes)
    bounds = torch.tensor([0.02, 0.05], dtype=torch.float64).view(-1, 1, 1, 1) / 3
    steps = [
        (ratio / 4 * (points - 0.5) * 0.1).clamp(-bounds, bounds) for ratio, points in zip(ratios, seen, strict=False)
    ]
    total = 2 * steps[0] + 0.5 * steps[1] + 0.5 * steps[2]
    torch.testing.assert_close(end, small + total, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[2], small + 2 * steps[0] + 0.5 * steps[1] + 0.5 * steps[1], rtol=0, atol=1e-12)


def test_one_level_under_steep_gradients_is_fgsm(small: Tensor) -> None:
    weights = 1e6 * torch.randn(2, 192, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    steep = on(lambda shown: (shown - 0.5).flatten(1) @ weights.T, [0, 1])
    labels = steep.classifiers[0](small).argmax(1).tolist()
    attack, strengths = AdvAD(epsilon=0.03, steps=1), torch.tensor([1.0, 0.5], dtype=torch.float64)
    found = attack.at_strengths(on(steep.classifiers[0], labels), small, KEY, strengths)
    signs = (weights[1] - weights[0]).sign().view(3, 8, 8)
    towards = [1 if label == 0 else -1 for label in labels]
    expected = small + torch.stack([0.03 * towards[0] * signs, 0.015 * towards[1] * signs])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_values_reach_the_radius_and_go_no_further(small: Tensor) -> None:
    found = AdvAD(epsilon=0.03, steps=50).at_strengths(on(Curved(10.0), [0, 3]), small, KEY, ONES)
    assert 0.029 < (found - small).abs().max() <= 0.03 + 1e-12


def test_log_others_stays_finite_where_the_label_is_certain() -> None:
    logits = torch.tensor([[200.0, 0.0, 1.0], [0.5, 0.2, -1.0]], requires_grad=True)
    loss = LogOthers()(logits, Goals(torch.tensor([0, 0])))
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert loss[0].item() == pytest.approx(200 - torch.tensor([0.0, 1.0]).logsumexp(0).item())
    assert slope[0, 0] == 1
    assert loss[1].item() == pytest.approx(-(1 - logits[1].softmax(0)[0]).log().item(), rel=1e-5)


@pytest.mark.parametrize("attack", [AdvAD(steps=10), AdvADX(steps=10)])
def test_without_a_gradient_the_image_stays(attack: AdvAD, images: Tensor) -> None:
    flat = load_classifier("lab:resnet")
    flat = replace(flat, preprocessing=replace(flat.preprocessing, std=(torch.inf,) * 3))
    surrogates = on(flat, LABELS)
    assert torch.equal(attack(surrogates, images, KEY), images)


def test_x_leaves_an_image_that_is_wrong_already(surrogates: Surrogates, images: Tensor) -> None:
    wrong = replace(surrogates, goals=Goals.of([3, 4], [None, None]))
    found = AdvADX(steps=25)(wrong, images, KEY)
    assert (found[0] - images[0]).abs().max() > 0
    assert torch.equal(found[1], images[1])


def test_x_moves_under_the_mean_map(surrogates: Surrogates, images: Tensor) -> None:
    whole, masked = (
        kind(steps=1, epsilon=0.5).at_strengths(surrogates, images, KEY, torch.ones(2)) - images
        for kind in (AdvAD, AdvADX)
    )
    labels = surrogates.goals.labels
    maps = torch.stack([grad_cam(each, images, labels) for each in surrogates.classifiers]).mean(0)  # type: ignore[arg-type]
    inside = (images > 0.05) & (images < 0.95)
    torch.testing.assert_close(masked[inside], (whole * maps)[inside], rtol=1e-3, atol=1e-6)


def test_x_asks_no_gradient_of_what_is_fooled(surrogates: Surrogates, images: Tensor) -> None:
    effort = Effort()
    found = AdvADX(steps=25, epsilon=0.1)(effort.of_surrogates(surrogates), images, KEY)
    assert (found != images).flatten(1).any(1).all()
    assert 0 < effort.gradients < 0.8 * 25 * 2 * 2


def test_it_fools_what_it_attacks_and_takes_the_target(surrogates: Surrogates, images: Tensor) -> None:
    found = AdvAD(epsilon=0.06, steps=10)(surrogates, images, KEY)
    assert (surrogates.judge(found)[1].mean(0) < 0).all()
    targeted = replace(surrogates, goals=Goals.of(LABELS, [4, 4]))
    for kind in (AdvAD, AdvADX):
        aimed = kind(epsilon=0.2, steps=20)(targeted, images, KEY)
        assert (surrogates.logits(aimed).mean(0).argmax(1) == 4).all()


def test_the_file_is_the_nearest_one_within_the_radius() -> None:
    images = torch.full((1, 3, 1, 1), 100 / 255)
    attacked = images + torch.tensor([0.4, 1.6, 2.6]).view(1, 3, 1, 1) / 255
    levels = (nearest_within(images, attacked, 2.4 / 255) * 255).flatten()
    torch.testing.assert_close(levels, torch.tensor([100.0, 102.0, 102.0]))


def test_each_image_takes_the_shortest_path_that_keeps_a_budget(small: Tensor) -> None:
    images, surrogates, budget = quantise(small), on(Curved(3.0), [0, 3]), Budget.of("l2", 0.22)
    attack = AdvAD(epsilon=8 / 255, lengths_tried=(2, 4, 10))
    found = attack.spend(surrogates, images, KEY, budget)
    assert budget.keeps(images, found).all()
    lengths = []
    for at in range(2):
        rows = torch.tensor([at])
        alone, key, image = select_rows(surrogates, rows), select_rows(KEY, rows), images[rows]
        kept = [
            steps
            for steps in attack.lengths_tried
            if budget.keeps(
                image, dithered(replace(attack, steps=steps).at_strengths(alone, image, key, ONES[:1]), key)
            )
        ]
        lengths.append((kept or [10])[0])
        fixed = replace(attack, steps=lengths[at])
        assert torch.equal(Baseline.spend(fixed, alone, image, key, budget)[0], found[at])
    assert lengths[0] != lengths[1], "both images have one length, so this test shows nothing"


def test_what_cannot_be_meant_is_refused(small: Tensor, images: Tensor) -> None:
    with pytest.raises(
        RecipeError, match="no whole stride takes 300 of the 1000 noise levels; a stride of 4 takes 250"
    ):
        build(BASELINES, "advad", {"steps": 300})
    with pytest.raises(RecipeError, match="stranger, which is no surrogate"):
        AdvADX(fusion="weighted", fusion_options={"weights": {"stranger": 1.0}}).check(on(Curved(), [0, 3]), small)
    blind = load_classifier("lab:resnet")
    blind = replace(blind, network=torch.nn.Sequential(blind.network))
    with pytest.raises(ModelError, match="baseline 'advad_x': no Grad-CAM for classifier"):
        AdvADX(steps=1).check(on(blind, LABELS), images)
