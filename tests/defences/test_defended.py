"""A classifier behind defences: its logits, its name, and its use as a classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.classifiers.gradcam import grad_cam
from attnshift.defences.bit_depth import BitDepth
from attnshift.defences.defended import DefenceCache, Defended
from attnshift.defences.gaussian_blur import GaussianBlur
from attnshift.defences.jpeg import JpegCompression
from attnshift.defences.smoothing import Smoothing
from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import CrossEntropy
from attnshift.types import Goals
from lab_scenes import rendered


class Recording:
    """Adds ``shift`` and notes how many images it is handed at once."""

    differentiable: ClassVar[bool] = True

    def __init__(self, shift: float):
        self.shift, self.sizes = shift, []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images + self.shift


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    return load_classifier("lab:resnet")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rendered(range(3)).images


def test_it_answers_what_the_classifier_says_of_the_defended_images(resnet: Classifier, images: Tensor) -> None:
    defended = Defended(resnet, GaussianBlur(2.0))
    torch.testing.assert_close(defended(images), resnet(GaussianBlur(2.0)(images)), rtol=1e-5, atol=1e-5)
    assert defended.name == "GaussianBlur(sigma=2.0)+lab:resnet"
    assert Defended(resnet, GaussianBlur(), "mine").name == "mine"


def test_the_outer_defence_meets_the_image_first(resnet: Classifier, images: Tensor) -> None:
    chain = Defended(Defended(resnet, BitDepth(2)), GaussianBlur(2.0))
    torch.testing.assert_close(chain(images), resnet(BitDepth(2)(GaussianBlur(2.0)(images))), rtol=1e-5, atol=1e-5)
    assert (chain(images) - resnet(GaussianBlur(2.0)(BitDepth(2)(images)))).abs().max() > 1e-2


def test_images_pass_the_defence_one_by_one(resnet: Classifier, images: Tensor) -> None:
    defence = Recording(0.0)
    Defended(resnet, defence)(images)
    assert defence.sizes == [1, 1, 1]


def test_a_chain_is_differentiable_where_all_of_it_is(resnet: Classifier) -> None:
    assert Defended(Defended(resnet, JpegCompression()), BitDepth()).differentiable
    assert not Defended(Defended(resnet, Smoothing()), BitDepth()).differentiable
    assert not Defended(Defended(resnet, BitDepth()), Smoothing()).differentiable


def test_changed_fields_change_behind_the_defences(resnet: Classifier, images: Tensor) -> None:
    other = Preprocessing((64, 64), "bilinear", (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    chain = Defended(Defended(resnet, BitDepth(3)), GaussianBlur(), "mine")
    changed = replace(chain, preprocessing=other)
    expected = replace(resnet, preprocessing=other)(BitDepth(3)(GaussianBlur()(images)))
    torch.testing.assert_close(changed(images), expected, rtol=1e-5, atol=1e-5)
    assert changed.name == "mine"
    assert chain.preprocessing == resnet.preprocessing


def test_an_ensemble_attacks_through_it(resnet: Classifier, images: Tensor) -> None:
    """Gradient steps lower the true class behind the defence, though JPEG files have no gradient."""
    labels = resnet(images).argmax(1)
    defended = Defended(resnet, JpegCompression(40))
    surrogates = Surrogates([defended], CrossEntropy(), Goals(labels))
    gradients, losses, _ = surrogates.gradients(images)
    assert surrogates.names == ("JpegCompression(quality=40, gradient='codec')+lab:resnet",)
    assert (gradients[0].flatten(1).norm(dim=1) > 0).all()
    after, _ = surrogates.judge(images - 4 / 255 * gradients[0].sign())
    assert (after < losses).all()


def test_grad_cam_looks_past_the_defence(resnet: Classifier, images: Tensor) -> None:
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(grad_cam(Defended(resnet, JpegCompression()), images, labels), grad_cam(resnet, images, labels))


def test_a_defence_before_several_classifiers_acts_once(resnet: Classifier, images: Tensor) -> None:
    first, second = Recording(0.1), Recording(-0.2)
    other = load_classifier("lab:coatnet")
    smoothed = Defended(resnet, Smoothing(copies=4, sigma=0.1))
    asked = [
        *(Defended(each, first) for each in (resnet, other)),
        *(Defended(Defended(each, second), first) for each in (resnet, other)),
        *(Defended(each, second) for each in (resnet, other)),
        Defended(smoothed, first),
        resnet,
    ]
    shown = DefenceCache(images)
    found = [shown.to(each) for each in asked]
    assert len(first.sizes) == len(images), "once for all that it stands before"
    assert len(second.sizes) == 2 * len(images), "behind the first one, and alone"
    for classifier, logits in zip(asked, found, strict=True):
        assert torch.equal(logits, classifier(images))
