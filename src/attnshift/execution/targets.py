"""Targets that are chosen image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier, common_classes
from attnshift.data.datasets import ChooseTarget
from attnshift.data.images import Framing
from attnshift.defences.defended import Defended
from attnshift.randomness import generator

__all__ = ["nearest_target", "random_target", "target_choices"]


def target_choices(classifiers: Sequence[Classifier], framing: Framing) -> Mapping[str, ChooseTarget]:
    """Choices of targets for an attack on ``classifiers`` with images in ``framing``, by name."""
    return {
        "nearest": partial(nearest_target, classifiers, framing),
        "random": partial(random_target, common_classes(classifiers)),
    }


def random_target(classes: int, content: bytes, label: int, id: str, file: str) -> int:
    """Class drawn from all ``classes`` but ``label``, by the image's ``id`` alone."""
    drawn = int(generator(id, "target").integers(classes - 1))
    return drawn + (drawn >= label)


@torch.no_grad()
def nearest_target(
    classifiers: Sequence[Classifier], framing: Framing, content: bytes, label: int, id: str, file: str
) -> int:
    """Wrong class of the highest mean probability on the clean image.

    Defences before ``classifiers`` do not count, so that an attack that knows a defence has the
    targets of one that does not.
    """
    networks = [_undefended(each) for each in classifiers]
    image = framing.decode(content, file)[None]
    shares: Tensor = torch.stack([_shares(each, image) for each in networks]).mean(0)
    shares[label] = -1
    return int(shares.argmax())


def _undefended(classifier: Classifier) -> Classifier:
    while isinstance(classifier, Defended):
        classifier = classifier.classifier
    return classifier


def _shares(classifier: Classifier, image: Tensor) -> Tensor:
    device = next(classifier.network.parameters()).device
    return classifier(image.to(device))[0].softmax(0).cpu()
