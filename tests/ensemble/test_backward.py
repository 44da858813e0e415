"""Feature losses: what a surrogate's gradient becomes, and that answers stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.batching import select_rows
from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.ensemble import RULES
from attnshift.ensemble.backward import BackwardPass, FeatureLoss
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import ModelError
from attnshift.losses.classification import CrossEntropy, Margin
from attnshift.registry import build
from attnshift.types import Goals, RandomKey
from later import later

timm = later("timm")

CLEAN = FeatureLoss(2.0, "body", 1, 0.0)
"""Twice the pull of the logits, with the weights of the clean image itself."""


class Network(nn.Module):
    """A body and a head, of different weights for each ``seed``."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1))
        self.head = nn.Linear(4 * 5 * 5, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).tanh().flatten(1))


def classifier(seed: int) -> Classifier:
    plain = Preprocessing((5, 5), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Classifier(f"number {seed}", Network(seed), plain, 6)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(7))


GOALS = Goals(torch.tensor([0, 3, 5]))
KEY = RandomKey(0, ("a", "b", "c"), 0)


def surrogates(loss: FeatureLoss | None = CLEAN, count: int = 1, goals: Goals = GOALS, **changes: Any) -> Surrogates:
    models = [classifier(seed) for seed in range(count)]
    backward = tuple(BackwardPass.of(each, 1.0, 0.0, loss, images(), goals, KEY) for each in models)
    return replace(Surrogates(models, CrossEntropy(), goals), backward=backward, **changes)


def moved() -> Tensor:
    return (images() + 0.1).clamp(0, 1)


def expected(model: Classifier, goals: Goals = GOALS, share: float = 2.0) -> Tensor:
    """The gradient at ``moved`` by hand."""
    network: Any = model.network
    clean = network.body(model.preprocessing(images())).requires_grad_()
    logits = network.head(clean.tanh().flatten(1))
    pull = logits.gather(1, goals.labels[:, None])
    if goals.targets is not None:
        pull = pull - logits.gather(1, goals.targets[:, None])
    (weights,) = torch.autograd.grad(pull.sum(), clean)
    leaf = moved().requires_grad_()
    features = network.body(model.preprocessing(leaf))
    logits = network.head(features.tanh().flatten(1))
    (plain,) = torch.autograd.grad(CrossEntropy()(logits, goals).sum(), features, retain_graph=True)
    lengths = [each.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for each in (plain, weights)]
    (found,) = torch.autograd.grad(features, leaf, plain + share * lengths[0] / lengths[1] * weights)
    return found


@pytest.mark.parametrize("targets", [None, torch.tensor([1, 1, 2])], ids=["untargeted", "targeted"])
def test_the_features_pull_by_their_share(targets: Tensor | None) -> None:
    goals = replace(GOALS, targets=targets)
    models = surrogates(goals=goals)
    seen, plain = models.gradients(moved()), surrogates(None, goals=goals).gradients(moved())
    torch.testing.assert_close(seen.gradients[0], expected(models.classifiers[0], goals))  # type: ignore[arg-type]
    assert torch.equal(seen.losses, plain.losses)
    assert torch.equal(seen.margins, plain.margins)


def test_the_attention_of_a_transformer_pulls_where_its_module_is_named() -> None:
    """What the attention of a block adds to the tokens is a layer; the pull there is seen at the image."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=6, img_size=32).eval().requires_grad_(False)
    model = Classifier("vit", network, Preprocessing((32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3), 6)
    shown = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    found = []
    for loss in (None, FeatureLoss(2.0, "blocks.1.attn", 1, 0.0)):
        backward = (BackwardPass.of(model, 1.0, 0.0, loss, shown, GOALS, KEY),)
        found.append(replace(Surrogates([model], CrossEntropy(), GOALS), backward=backward).gradients(shown))
    plain, pulled = found
    assert torch.equal(plain.losses, pulled.losses)
    cosine = torch.cosine_similarity(plain.gradients[0].flatten(1), pulled.gradients[0].flatten(1))
    assert bool((cosine < 0.99).all())
    assert bool(pulled.gradients[0].isfinite().all())


def test_each_view_pulls_along_the_weights() -> None:
    def turned(shown: Tensor) -> Tensor:
        return shown.flip(3)

    def as_it_is(shown: Tensor) -> Tensor:
        return shown

    both = surrogates(views=(as_it_is, turned)).gradients(moved()).gradients
    alone = [surrogates(views=(view,)).gradients(moved()).gradients for view in (as_it_is, turned)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_an_image_that_is_fooled_enough_is_left_alone() -> None:
    """The margin loss is flat there, and the features have a share of nothing."""
    models = surrogates(criterion=Margin(kappa=-100.0))
    assert not models.gradients(moved()).gradients.any()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_sees_it_image_by_image(rule: str) -> None:
    loss = FeatureLoss(1.0, 0.5, 2, 0.3)
    models, plain, fuse = surrogates(loss, count=3), surrogates(None, count=3), build(RULES, rule, {})
    together = fuse(models, moved()).direction
    assert (together - fuse(plain, moved()).direction).norm() > 1e-3 * together.norm()
    for image in range(3):
        rows = torch.tensor([image])
        alone = fuse(select_rows(models, rows), moved()[rows]).direction
        torch.testing.assert_close(alone, together[rows], rtol=1e-4, atol=1e-6)


def test_weights_depend_on_no_batch_mate_and_on_the_draws() -> None:
    loss, model = FeatureLoss(1.0, "body", 3, 0.3), classifier(0)
    together = BackwardPass.of(model, 1.0, 0.0, loss, images(), GOALS, KEY).weights
    rows = torch.tensor([1])
    key = RandomKey(0, ("b",), 0)
    alone = BackwardPass.of(model, 1.0, 0.0, loss, images()[rows], select_rows(GOALS, rows), key).weights
    assert together is not None
    torch.testing.assert_close(alone, together[rows])
    torch.testing.assert_close(together.flatten(1).norm(dim=1), torch.ones(3))
    other = BackwardPass.of(model, 1.0, 0.0, loss, images(), GOALS, replace(KEY, seed=1)).weights
    assert not torch.allclose(together, other)  # type: ignore[arg-type]


def test_in_bf16_the_gradient_is_nearly_the_same() -> None:
    exact = surrogates().gradients(moved()).gradients
    rough = surrogates(precision=torch.bfloat16).gradients(moved()).gradients
    assert (rough - exact).norm() < 0.05 * exact.norm()


def test_a_classifier_that_shows_an_image_several_times_is_refused() -> None:
    class Twice(Classifier):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images) + super().__call__(images.flip(3))

    inner = classifier(0)
    twice = Twice("twice", inner.network, inner.preprocessing, 6)
    with pytest.raises(ModelError, match=r"'twice' does not show its layer body each image once.*features.share"):
        BackwardPass.of(twice, 1.0, 0.0, CLEAN, images(), GOALS, KEY)


def test_nothing_stays_on_the_network() -> None:
    models = surrogates()
    models.gradients(moved())
    after = replace(models, backward=()).gradients(moved()).gradients
    assert torch.equal(after, surrogates(None).gradients(moved()).gradients)
