"""Classes of two classifiers are the same by name: ImageNet's two spellings, defences and Grad-CAM."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import in_order_of
from attnshift.classifiers.gradcam import grad_cam
from attnshift.classifiers.names import imagenet_names, positions
from attnshift.data.class_names import ClassNames
from attnshift.defences.names import load_defended
from later import later

_meta = later("torchvision.models._meta")

SEVERAL = {"crane", "maillot", "Cardigan", "cardigan"}
"""Names of ImageNet that two classes have."""


def test_the_two_spellings_of_imagenet_are_one_order() -> None:
    ours, theirs = imagenet_names(), _meta._IMAGENET_CATEGORIES
    assert [at for at, name in enumerate(ours) if name != theirs[at]] == [134, 639]
    assert positions(ours, theirs) == positions(theirs, ours) == tuple(range(1000))


def test_classes_with_one_name_are_never_merged() -> None:
    """In another order nothing tells the bird from the machine."""
    found = positions(imagenet_names(), _meta._IMAGENET_CATEGORIES[::-1])
    assert {imagenet_names()[at] for at, place in enumerate(found) if place < 0} == SEVERAL
    assert all(place in (-1, 999 - at) for at, place in enumerate(found))
    names = ClassNames(imagenet_names())
    assert [names.find(each) for each in ("crane", "cardigan", "Cardigan")] == [(134, 517), (474,), (264,)]
    assert names.alike("cardigan") == (264, 474)


def test_a_class_without_a_name_is_never_found() -> None:
    assert [ClassNames(["ball", "", "mug"]).find(each) for each in ("", " ", "mug")] == [(), (), (2,)]


@pytest.mark.parametrize(
    ("names", "others", "found"),
    [
        (["a", "b"], ["b", "a"], (1, 0)),
        (["Red_Ball", "mug"], ["red ball", "mug"], (0, 1)),
        (["ball", "mug"], ["ball", "cup"], (0, -1)),
        (["ball", "ball"], ["ball", "mug"], (-1, -1)),
        (["ball", "mug", "tree"], ["red ball", "mug", "tree"], (0, 1, 2)),
        (["ball", "mug", "tree"], ["red ball", "tree", "mug"], (-1, 2, 1)),
        (["", "mug"], ["mug", ""], (-1, 0)),
    ],
)
def test_positions(names: list[str], others: list[str], found: tuple[int, ...]) -> None:
    assert positions(names, others) == found


def test_a_defended_classifier_is_brought_to_the_order_behind_its_defence() -> None:
    defended = load_defended("jpeg+random:test_resnet")
    names = [f"{name} {at}" for at, name in enumerate(imagenet_names())]
    own = replace(defended, class_names=tuple(names))
    turned = in_order_of(names[::-1], own)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (turned.name, turned.fingerprint()) == (own.name, own.fingerprint())
    assert torch.equal(turned(images), own(images).flip(1))


def test_grad_cam_speaks_for_the_class_of_the_name() -> None:
    own = load_classifier("lab:resnet")
    turned = in_order_of(own.class_names[::-1], own)
    images, labels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3])
    last = own.classes - 1
    assert torch.equal(grad_cam(turned, images, last - labels), grad_cam(own, images, labels))
