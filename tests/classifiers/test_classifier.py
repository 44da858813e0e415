"""Guarantees of classifiers: their own preprocessing, constant weights, gradients at the images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, Interpolation, Preprocessing
from attnshift.lab.weights import classifier_names
from classifiers.images import levels_apart, photograph
from later import later

timm = later("timm")
data = later("timm.data")
transforms = later("torchvision.transforms")
vision = later("torchvision.transforms.v2.functional")
timm_source = later("attnshift.classifiers.timm_source")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(40, 40), (100, 90), (64, 64)])
def test_preprocessing_is_torchvisions_resize_and_normalize(
    interpolation: Interpolation, size: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    resized = vision.resize(images, list(size), transforms.InterpolationMode(interpolation), antialias=True)
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


@pytest.mark.parametrize(
    ("resized", "size"), [((64, 64), (56, 48)), ((67, 64), (56, 49)), ((48, 48), (56, 56)), ((48, 60), (56, 51))]
)
def test_the_centre_is_cut_out_as_torchvision_does(resized: tuple[int, int], size: tuple[int, int]) -> None:
    """Odd margins, and black around an image that is smaller than what the network takes."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cut = vision.center_crop(vision.resize(images, list(resized), antialias=True), list(size))
    expected = vision.normalize(cut, list(MEAN), list(STD))
    assert torch.allclose(Preprocessing(size, "bilinear", MEAN, STD, resized)(images), expected, atol=1e-5)


def test_what_is_said_about_the_input_is_laid_over_the_image() -> None:
    """Of 64 pixels the network sees the middle 32, in a map of 2 x 2."""
    maps = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    laid = Preprocessing((32, 32), "bilinear", MEAN, STD, (64, 64)).lay_over(maps, (64, 64))
    assert laid.shape == (1, 1, 64, 64)
    assert laid[0, 0, 16:48, 16:48].amax() == 1
    laid[..., 16:48, 16:48] = 0
    assert not laid.any()


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "convnext_atto", "vit_tiny_patch16_224", "efficientnet_b1"])
def test_timms_preprocessing_is_its_own_transform(name: str) -> None:
    network = timm.create_model(name)
    image = photograph()
    expected = data.create_transform(**data.resolve_model_data_config(network))(image)
    assert levels_apart(timm_source.preprocessing(network), image, expected) < 1.6


@pytest.mark.parametrize("name", classifier_names())
def test_the_labs_classifiers_see_the_whole_image(name: str) -> None:
    assert load_classifier(f"lab:{name}").preprocessing.resized is None


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


def test_a_long_image_is_cropped_as_torchvision_crops_it_unless_it_is_squashed() -> None:
    images = torch.rand(1, 3, 40, 61, generator=torch.Generator().manual_seed(0))
    cut = Preprocessing((16, 16), "bilinear", (0.0,) * 3, (1.0,) * 3, (20, 20))
    expected = vision.center_crop(vision.resize(images, [20], antialias=True), [16, 16])
    torch.testing.assert_close(cut(images), expected)
    whole = replace(cut, squash=True)
    torch.testing.assert_close(
        whole(images), vision.center_crop(vision.resize(images, [20, 20], antialias=True), [16, 16])
    )
    (row, column), seen = (20, 30), torch.ones(1, 1, 4, 4)
    for each, outside in ((cut, 12), (whole, 4)):
        laid = each.lay_over(seen, (40, 61))[0, 0]
        assert laid[row, column] == 1
        assert not laid[:, :outside].any()
        assert laid[row, outside + 4] > 0
