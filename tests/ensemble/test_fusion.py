"""How gradients become one direction, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnshift.ensemble.fusion import Uniform, combine
from attnshift.ensemble.surrogates import Surrogates
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
    torch.testing.assert_close(combine(gradients, weights, True), torch.tensor([[0.25 * scale, 0.75 * scale]]))
    torch.testing.assert_close(combine(gradients, weights, False), torch.tensor([[0.5, 4.5]]))


def test_plain_uniform_is_the_gradient_of_the_mean_loss() -> None:
    models, shown = surrogates(), images().requires_grad_()
    losses = torch.stack([models.criterion(each(shown), models.goals) for each in models.classifiers])
    (expected,) = torch.autograd.grad(losses.mean(0).sum(), shown)
    torch.testing.assert_close(Uniform(normalise=False)(models, images()).direction, expected)


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
    assert surrogates().rows(torch.tensor([1])).goals.labels.tolist() == [3]
