"""How gradients become one direction, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from attnshift.batching import select_rows
from attnshift.ensemble.blending import AdaEA, Logits, agreement
from attnshift.ensemble.fusion import Consensus, Laggard, Progress, Uniform, Weighted, Worst, combine, effective_models
from attnshift.ensemble.surrogates import Surrogates, as_it_is
from attnshift.errors import RecipeError
from attnshift.losses.classification import CrossEntropy, Margin, margins
from attnshift.types import Goals


def linear(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(4, 3 * 2 * 2, generator=torch.Generator().manual_seed(seed))


def surrogates(criterion: object = CrossEntropy()) -> Surrogates:
    weights = [linear(0), linear(1, 30.0)]
    models = [lambda images, each=each: images.flatten(1) @ each.T for each in weights]
    return Surrogates(models, criterion, Goals(torch.tensor([0, 3])))  # type: ignore[arg-type]


def images() -> Tensor:
    return torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(2))


def test_combine_by_hand() -> None:
    """Two models, one image, two pixels: units (1,0) and (0,1), norms 2 and 6, weights 1/4 and 3/4."""
    gradients = torch.tensor([[[2.0, 0.0]], [[0.0, 6.0]]])
    weights = torch.tensor([[0.25], [0.75]])
    scale = 0.25 * 2 + 0.75 * 6
    torch.testing.assert_close(combine(gradients, weights, "norm"), torch.tensor([[0.25 * scale, 0.75 * scale]]))
    torch.testing.assert_close(combine(gradients, weights, "unit"), torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(combine(gradients, weights, "raw"), torch.tensor([[0.5, 4.5]]))


def test_plain_uniform_is_the_gradient_of_the_mean_loss() -> None:
    models, shown = surrogates(), images().requires_grad_()
    losses = torch.stack([models.criterion(each(shown), models.goals) for each in models.classifiers])
    (expected,) = torch.autograd.grad(losses.mean(0).sum(), shown)
    torch.testing.assert_close(Uniform(scale="raw")(models, images()).direction, expected)


def test_normalised_uniform_lets_no_model_drown_the_others() -> None:
    models = surrogates()
    gradients, _, _ = models.gradients(images())
    norms = gradients.flatten(2).norm(dim=2)
    assert (norms[1] > 5 * norms[0]).all()
    direction = Uniform()(models, images()).direction
    for image in range(2):
        units = [gradients[model, image] / norms[model, image] for model in range(2)]
        torch.testing.assert_close(direction[image], (units[0] + units[1]) / 2 * norms[:, image].mean())


@pytest.mark.parametrize("criterion", [CrossEntropy(), Margin(kappa=10.0)])
def test_surrogates_give_gradients_losses_and_margins_of_each_model(criterion: CrossEntropy | Margin) -> None:
    models = surrogates(criterion)
    gradients, losses, seen = models.gradients(images())
    for place, model in enumerate(models.classifiers):
        shown = images().requires_grad_()
        logits = model(shown)
        expected = criterion(logits, models.goals)
        torch.testing.assert_close(losses[place], expected.detach())
        torch.testing.assert_close(seen[place], margins(logits.detach(), models.goals))
        torch.testing.assert_close(gradients[place], torch.autograd.grad(expected.sum(), shown)[0])
    judged_losses, judged_margins = models.judge(images())
    torch.testing.assert_close(judged_losses, losses)
    torch.testing.assert_close(judged_margins, seen)


def test_rows_keep_the_labels_of_their_images() -> None:
    assert select_rows(surrogates(), torch.tensor([1])).goals.labels.tolist() == [3]


class Linear:
    """Logits are fixed, and the gradient of the loss is ``pull`` where the margin criterion is not flat."""

    def __init__(self, name: str, pull: Sequence[float], margin: float = 1.0):
        self.name, self.pull, self.margin = name, torch.tensor(pull).view(3, 1, 1), margin

    def __call__(self, images: Tensor) -> Tensor:
        """Two classes; class 0 leads by ``margin`` at an image of 0.5."""
        own = self.margin + ((images - 0.5) * self.pull).flatten(1).sum(1)
        return torch.stack([own, torch.zeros_like(own)], 1)


def pulled(*models: Linear, kappa: float = 0.0) -> Surrogates:
    return Surrogates(models, Margin(kappa=kappa), Goals(torch.tensor([0])))


def grey() -> Tensor:
    return torch.full((1, 3, 1, 1), 0.5)


def shares(*numbers: float) -> list[float]:
    return [each / sum(numbers) for each in numbers]


def test_weighted_shares_go_by_name_and_a_stranger_is_refused() -> None:
    models = pulled(Linear("a", [1, 0, 0]), Linear("b", [0, 2, 0]), Linear("c", [0, 0, 1]))
    fused = Weighted(weights={"b": 3.0, "c": 0.0}, scale="raw")(models, grey())
    assert fused.weights[:, 0].tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert fused.direction.flatten().tolist() == pytest.approx([0.25, 1.5, 0.0])
    with pytest.raises(RecipeError, match=r"weight to d, which is no surrogate; the surrogates are a, b, c"):
        Weighted(weights={"d": 1.0})(models, grey())
    with pytest.raises(RecipeError, match="every surrogate the weight 0"):
        Weighted(weights=dict.fromkeys("abc", 0.0))(models, grey())


def test_consensus_of_two_is_even_and_of_three_leaves_the_stranger_little() -> None:
    first, second, third = Linear("a", [1, 0, 0]), Linear("b", [0.6, 0.8, 0]), Linear("c", [0, 0, 5])
    assert Consensus()(pulled(first, third), grey()).weights[:, 0].tolist() == pytest.approx([0.5, 0.5])
    fused = Consensus(tau=5.0)(pulled(first, second, third), grey())
    mean = torch.tensor([1.6, 0.8, 1.0])
    cosines = [
        float(torch.dot(torch.tensor(unit), mean) / mean.norm()) for unit in ([1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0])
    ]
    assert fused.weights[:, 0].tolist() == pytest.approx(shares(*[math.exp(5 * each) for each in cosines]), rel=1e-5)


def test_laggard_and_worst_look_at_who_resists() -> None:
    models = pulled(Linear("a", [1, 0, 0], 0.5), Linear("b", [0, 1, 0], 2.5), Linear("c", [0, 0, 1], -1.0))
    fused = Laggard(temperature=2.0)(models, grey())
    assert fused.weights[:, 0].tolist() == pytest.approx([*shares(1, math.e), 0.0])
    worst = Worst()(models, grey())
    assert worst.weights[:, 0].tolist() == [0, 1, 0]
    assert worst.direction.flatten().tolist() == [0, 1, 0]
    smooth = Worst(smooth=4.0)(models, grey())
    assert smooth.weights[:, 0].tolist() == pytest.approx([*shares(1, math.exp(0.5)), 0.0])
    shared = Worst()(pulled(Linear("a", [1, 0, 0]), Linear("b", [0, 1, 0])), grey())
    assert shared.weights[:, 0].tolist() == [0.5, 0.5]


def test_progress_follows_those_that_give_way() -> None:
    rule = Progress(temperature=1.0, decay=0.5)
    first = rule(pulled(Linear("a", [1, 0, 0], 3.0), Linear("b", [0, 1, 0], 3.0)), grey())
    assert first.weights[:, 0].tolist() == [0.5, 0.5]
    second = rule(pulled(Linear("a", [1, 0, 0], 1.0), Linear("b", [0, 1, 0], 3.5)), grey(), first.state)
    assert second.weights[:, 0].tolist() == pytest.approx(shares(math.exp(1.0), math.exp(-0.25)))
    third = rule(pulled(Linear("a", [1, 0, 0], 1.0), Linear("b", [0, 1, 0], 3.0)), grey(), second.state)
    assert third.weights[:, 0].tolist() == pytest.approx(shares(math.exp(0.5), math.exp(-0.125 + 0.25)))


def test_a_mean_of_logits_is_not_a_mean_of_losses() -> None:
    """Averaged logits lead by (4 - 1) / 2; one model that is fooled by more than kappa takes no part."""
    resists, fooled, gone = Linear("a", [2, 0, 0], 4.0), Linear("b", [0, 4, 0], -1.0), Linear("c", [0, 0, 8], -3.0)
    fused = Logits()(pulled(resists, fooled, gone, kappa=2.0), grey())
    assert fused.weights[:, 0].tolist() == [0.5, 0.5, 0]
    assert fused.direction.flatten().tolist() == pytest.approx([1, 2, 0])
    assert fused.margins[:, 0].tolist() == [4, -1, -3]
    assert fused.losses[:, 0].tolist() == [6, 1, 0]


@pytest.mark.parametrize("models", [2, 3, 4, 7])
def test_identical_gradients_agree_everywhere(models: int) -> None:
    """The released filter gives 0.75 for four of them."""
    one = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    active = torch.ones(models, 2, dtype=torch.bool)
    torch.testing.assert_close(agreement(one.expand(models, -1, -1, -1, -1), active), torch.ones(2, 5, 5))


def test_agreement_is_the_mean_over_all_pairs_of_active_models() -> None:
    ways = [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]]
    gradients = torch.tensor(ways).view(4, 1, 2, 1, 1).expand(-1, 2, -1, -1, -1)
    active = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    half = 0.5**0.5
    pairs = [0, -1, half, 0, half, -half]
    assert agreement(gradients, active).flatten().tolist() == pytest.approx([sum(pairs) / 6, -1])
    alone = torch.tensor([[False], [True], [False], [False]]).expand(-1, 2)
    assert agreement(gradients, alone).flatten().tolist() == [1, 1]


@pytest.mark.parametrize("targets", [None, torch.tensor([2, 1])])
def test_adaea_by_its_definition(targets: Tensor | None) -> None:
    """Image by image and model by model, straight from the paper's text."""
    weights = [linear(0), linear(1, 2.0), linear(5, 4.0)]
    classifiers = [lambda images, each=each: (images.flatten(1) @ each.T).tanh() for each in weights]
    models = Surrogates(classifiers, CrossEntropy(), Goals(torch.tensor([0, 3]), targets))
    rule = AdaEA(beta=0.7, eta=-0.1, step=0.05)
    fused = rule(models, images())
    aims, dropped = models.goals.labels if targets is None else targets, 0
    for image in range(2):
        shown, aim = images()[image : image + 1], aims[image : image + 1]

        def entropy(model: int, picture: Tensor, aim: Tensor = aim) -> Tensor:
            return torch.nn.functional.cross_entropy(models.classifiers[model](picture), aim)

        sign = 1 if targets is None else -1
        gradients, examples = [], []
        for model in range(3):
            leaf = shown.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(entropy(model, leaf), leaf)
            gradients.append(gradient[0])
            examples.append((shown + sign * 0.05 * gradient.sign()).clamp(0, 1))
        scores = []
        for source in range(3):
            ratios = [
                entropy(each, examples[source]) / entropy(each, examples[each]) for each in range(3) if each != source
            ]
            scores.append(sum(ratio if targets is None else 1 / ratio for ratio in ratios))
        shares = (0.7 * torch.stack(scores)).softmax(0)  # type: ignore[arg-type]
        torch.testing.assert_close(fused.weights[:, image], shares)
        leaf = shown.clone().requires_grad_()
        blended = sum(share * model(leaf) for share, model in zip(shares, classifiers, strict=True))
        loss = -sign * torch.nn.functional.cross_entropy(blended, aim)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, leaf)
        cosines = [torch.cosine_similarity(a, b, dim=0) for a, b in combinations(gradients, 2)]
        kept = torch.stack(cosines).mean(0) >= -0.1
        dropped += int((~kept).sum())
        torch.testing.assert_close(fused.direction[image], gradient[0] * kept)
    assert 0 < dropped < 8, "the filter has something to do here"


def test_views_give_the_mean_gradient_and_the_margins_of_the_image_itself() -> None:
    def mirrored(shown: Tensor) -> Tensor:
        return shown.flip(-1)

    def dimmed(shown: Tensor) -> Tensor:
        return 0.5 * shown

    models = replace(surrogates(), views=(as_it_is, mirrored, dimmed))
    found = models.gradients(images())
    leaf = images().requires_grad_()
    for place, model in enumerate(models.classifiers):
        views = [view(leaf) for view in models.views]
        losses = torch.stack([models.criterion(model(shown), models.goals) for shown in views])
        torch.testing.assert_close(found.losses[place], losses.mean(0).detach())
        torch.testing.assert_close(found.gradients[place], torch.autograd.grad(losses.mean(0).sum(), leaf)[0])
    torch.testing.assert_close(found.margins, surrogates().judge(images())[1])
    blend = models.blend(images())
    mean = torch.stack(
        [torch.stack([model(view(leaf)) for view in models.views]) for model in models.classifiers]
    ).mean(0)
    loss = torch.stack([models.criterion(each, models.goals) for each in mean]).mean(0).sum()
    torch.testing.assert_close(blend.gradient, torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(blend.margins, found.margins)
    torch.testing.assert_close(blend.losses, found.losses)


def test_effective_models_count_voices() -> None:
    assert effective_models([(0.25,) * 4]) == pytest.approx(4)
    assert effective_models([(1.0, 0.0), (0.5, 0.5)]) == pytest.approx(1.5)
    assert effective_models([(0.0, 0.0), (0.8, 0.2)]) == pytest.approx(1 / 0.68), "no model pulled in the first"
    assert effective_models([(0.0, 0.0)]) == effective_models([]) == 0


def test_a_classifier_that_gives_nan_is_not_mistaken_for_a_fooled_one() -> None:
    models = pulled(Linear("a", [1, 0, 0]), Linear("b", [math.nan, 0, 0]))
    assert Uniform()(models, grey()).direction.isnan().any()


def test_bf16_is_for_gradients_and_for_ranking_and_what_surrogates_answer_is_exact() -> None:
    exact = surrogates()
    rough = replace(exact, precision=torch.bfloat16)
    assert torch.equal(rough.logits(images()), exact.logits(images()))
    assert torch.equal(rough.judge(images())[1], exact.judge(images())[1])
    near = rough.judge(images(), exact=False)[1]
    assert not torch.equal(near, exact.judge(images())[1])
    torch.testing.assert_close(near.float(), exact.judge(images())[1], rtol=0.03, atol=0.3)
    found, wanted = rough.gradients(images()).gradients, exact.gradients(images()).gradients
    assert found.dtype == wanted.dtype
    assert not torch.equal(found, wanted)
    assert torch.nn.functional.cosine_similarity(found.flatten(2), wanted.flatten(2), dim=2).min() > 0.98
