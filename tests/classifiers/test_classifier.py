"""What a classifier owes its users: its own preprocessing, constant weights, gradients at the images."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, Interpolation, Preprocessing

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(40, 40), (100, 90), (64, 64)])
def test_preprocessing_is_torchvisions_resize_and_normalize(
    interpolation: Interpolation, size: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    resized = vision.resize(images, list(size), InterpolationMode(interpolation), antialias=True)
    expected = vision.normalize(resized, list(MEAN), list(STD))
    assert torch.allclose(Preprocessing(size, interpolation, MEAN, STD)(images), expected, atol=1e-5)


def test_images_of_the_right_size_are_not_resampled() -> None:
    images = torch.rand(1, 3, 24, 24)
    undone = Preprocessing((24, 24), "bicubic", MEAN, STD)(images) * torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(undone + torch.tensor(MEAN).view(3, 1, 1), images, atol=1e-6)


def test_the_networks_own_configuration_is_used() -> None:
    """test_convnext and test_vit state other sizes and statistics than timm's defaults."""
    expected = load_classifier("random:test_vit")
    assert expected.preprocessing.size == (160, 160)
    assert expected.preprocessing.mean == pytest.approx(tuple(expected.network.pretrained_cfg["mean"]))  # type: ignore[index]


def test_weights_have_no_gradient_and_images_do(classifiers: list[Classifier]) -> None:
    for classifier in classifiers:
        images = torch.rand(2, 3, 64, 64, requires_grad=True)
        classifier(images).logsumexp(1).sum().backward()
        assert not classifier.network.training
        assert all(not weight.requires_grad and weight.grad is None for weight in classifier.network.parameters())
        assert images.grad is not None
        assert images.grad.isfinite().all()
        assert (images.grad.flatten(1).abs().amax(1) > 0).all(), "of every image"


def test_random_weights_depend_on_the_name_alone() -> None:
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = load_classifier("random:test_resnet")
    assert torch.equal(torch.get_rng_state(), state), "loading must not disturb anybody's draws"
    torch.manual_seed(2)
    second = load_classifier("random:test_resnet")
    other = load_classifier("random:test_resnet.r160_in1k")
    assert torch.equal(first(images).softmax(1), second(images).softmax(1))
    assert not torch.equal(first(images), other(images))


def test_probabilities_do_not_depend_on_batch_mates(classifiers: list[Classifier]) -> None:
    images = torch.rand(3, 3, 64, 64)
    for classifier in classifiers:
        together = classifier(images).softmax(1)
        assert together.shape == (3, classifier.classes)
        assert torch.allclose(together.sum(1), torch.ones(3))
        assert torch.allclose(together[1:2], classifier(images[1:2]).softmax(1), atol=1e-6)


def test_logits_are_single_precision_whatever_the_network_computes_in() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5).double())
    classifier = Classifier("double", network, Preprocessing((2, 2), "nearest", MEAN, STD), 5)
    assert classifier(torch.rand(1, 3, 2, 2).double()).dtype == torch.float32
