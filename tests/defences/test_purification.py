"""Diffusion purification with the lab's own pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.data.images import quantise
from attnshift.defences.purification import Purification, Purifier
from attnshift.diffusion import load_pipeline
from attnshift.errors import ModelError
from lab_scenes import rendered

if TYPE_CHECKING:
    from attnshift.diffusion.backbone import Backbone

LABELS = torch.arange(8)


@pytest.fixture(scope="module")
def lab() -> Backbone:
    return load_pipeline("lab")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return quantise(rendered(range(8)).images)


def right(name: str, images: Tensor) -> int:
    with torch.no_grad():
        return int((load_classifier(name)(images).argmax(1) == LABELS).sum())


def attacked(name: str, images: Tensor) -> Tensor:
    """Projected gradient descent, Linf 6/255."""
    classifier, moved = load_classifier(name), images
    for _ in range(8):
        leaf = moved.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(classifier(leaf), LABELS, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        moved = (images + (moved + 2 / 255 * gradient.sign() - images).clamp(-6 / 255, 6 / 255)).clamp(0, 1)
    return quantise(moved)


@torch.no_grad()
def test_at_strength_0_it_is_the_round_trip(lab: Backbone, images: Tensor) -> None:
    expected = lab.decode(lab.encode(images)).clamp(0, 1)
    torch.testing.assert_close(Purifier(Purification(0.0), lab)(images), expected, rtol=0, atol=1e-5)


@pytest.mark.heavy
def test_it_keeps_the_class_and_takes_the_attack(lab: Backbone, images: Tensor) -> None:
    purify = Purifier(Purification(), lab)
    adversarial = attacked("lab:resnet", images)
    assert right("lab:resnet", adversarial) <= 1
    assert right("lab:resnet", purify(adversarial)) >= 6
    clean = purify(images)
    for name in ("lab:resnet", "lab:coatnet", "lab:robust"):
        assert right(name, clean) >= 7


@torch.no_grad()
def test_noise_is_reduced(lab: Backbone, images: Tensor) -> None:
    noise = 8 / 255 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).sign()
    noisy, untouched = (images + noise).clamp(0, 1), lab.decode(lab.encode(images)).clamp(0, 1)
    left = (Purifier(Purification(0.1), lab)(noisy) - untouched).flatten(1).norm(dim=1)
    assert (left < 0.9 * (noisy - images).flatten(1).norm(dim=1)).all()


@pytest.mark.heavy
def test_more_strength_changes_more(lab: Backbone, images: Tensor) -> None:
    few = images[:3]
    changes = [float((Purifier(Purification(each), lab)(few) - few).square().mean()) for each in (0.0, 0.1, 0.3, 0.6)]
    assert changes == sorted(changes)
    assert changes[0] < changes[1]


def test_the_prompt_matters(lab: Backbone, images: Tensor) -> None:
    few = images[:2]
    plain, told = (Purifier(Purification(0.6, 10, prompt), lab)(few) for prompt in ("", "a photo of a blue snowman"))
    assert (plain - told).abs().mean() > 1e-3


def test_sizes_that_the_pipeline_cannot_take(lab: Backbone) -> None:
    with pytest.raises(ModelError, match="do not fit the model"):
        Purifier(Purification(), lab)(torch.zeros(1, 3, 62, 62))
