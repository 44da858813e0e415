"""Test of a network with two random images: it must return logits, as any classifier does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.errors import ModelError
from attnshift.randomness import generator
from attnshift.untrusted import UNUSABLE, reason

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier

__all__ = ["check_attackable", "probe"]

_MATES = 0.01
"""Largest change of an image's logits without its batch mates, relative to the largest logit.

Rounding causes far less, and batch statistics cause far more.
"""


@torch.no_grad()
def probe(classifier: Classifier) -> Classifier:
    """``classifier``, after a test: two random images give finite, different logits [2,classes].

    If it states 0 classes, the result has their true number. Raises ``ModelError`` if it returns
    anything but logits, or if an image's logits depend on its batch mates. A classifier that
    answers by the names of files is not tested: random images have none.
    """
    if hasattr(classifier, "of_files"):
        return classifier
    images = _images(classifier)
    name, output = classifier.name, _answer(classifier, images)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"{name} gives a {type(output).__name__} instead of logits; wrap it in a module that returns the tensor "
            "[batch, classes] alone"
        )
    shape = tuple(output.shape)
    if len(shape) != 2 or shape[0] != 2 or classifier.classes not in (0, shape[1]):
        expected = classifier.classes or "classes"
        raise ModelError(f"{name} gives {shape} for two images instead of logits (2, {expected})")
    if len(classifier.class_names) not in (0, shape[1]):
        raise ModelError(f"{name} has {shape[1]} classes but {len(classifier.class_names)} class names")
    if shape[1] < 2:
        raise ModelError(f"{name} knows fewer than two classes; nothing can be taken for another")
    if not bool(output.isfinite().all()):
        raise ModelError(f"{name} gives logits that are not finite; its weights or its mean and std are damaged")
    if bool((output >= 0).all()) and bool(((output.float().sum(1) - 1).abs() < 1e-3).all()):
        raise ModelError(f"{name} gives probabilities; let it return logits, without the softmax at its end")
    if torch.equal(output[0], output[1]):
        raise ModelError(f"{name} gives the same logits for two different images; are its weights loaded?")
    _check_mates(classifier, images, output)
    return replace(classifier, classes=shape[1])


def check_attackable(classifier: Classifier) -> None:
    """Raise ModelError unless a finite gradient of the logits reaches each of two random images."""
    images = _images(classifier).requires_grad_()
    with torch.enable_grad():
        output = _answer(classifier, images)
        if not isinstance(output, Tensor) or not output.requires_grad:
            raise ModelError(
                f"{classifier.name} cannot be attacked: no gradient passes it; take out argmax, detach() and "
                "no_grad(), or let it be a judge"
            )
        # A plain sum would be (nearly) constant after a log softmax over two classes.
        weights = torch.linspace(-1, 1, output.shape[1], dtype=output.dtype, device=output.device)
        (gradient,) = torch.autograd.grad((output * weights).sum(), images, allow_unused=True)
    if gradient is not None and not bool(gradient.isfinite().all()):
        raise ModelError(f"{classifier.name} cannot be attacked: its gradient at an image is not finite")
    if gradient is None or not bool(gradient.flatten(1).any(1).all()):
        raise ModelError(
            f"{classifier.name} cannot be attacked: its gradient at an image is zero; take out what rounds or "
            "quantises, or let it be a judge"
        )


def _images(classifier: Classifier) -> Tensor:
    """Two random images of a size that is not resized."""
    preprocessing = classifier.preprocessing
    sides = preprocessing.resized or preprocessing.size
    images = torch.from_numpy(generator("probe").random((2, 3, *sides))).to(torch.get_default_dtype())
    return images.to(next(classifier.network.parameters(), images).device)


def _answer(classifier: Classifier, images: Tensor) -> object:
    """Output of the network for ``images``. Raises ``ModelError`` if the network fails."""
    inputs = classifier.preprocessing(images)
    try:
        return classifier.network(inputs)
    except UNUSABLE as error:
        raise ModelError(f"{classifier.name} cannot take images {tuple(inputs.shape)}: {reason(error)}") from error


def _check_mates(classifier: Classifier, images: Tensor, together: Tensor) -> None:
    alone = _answer(classifier, images[:1])
    if isinstance(alone, Tensor) and alone.shape == together[:1].shape:
        moved = float((alone - together[:1]).abs().max())
        if moved <= _MATES * float(together.abs().max()):
            return
    again = _answer(classifier, images)
    # A network that draws at random gives two answers to one question. Then this test says nothing.
    if isinstance(again, Tensor) and torch.equal(again, together):
        raise ModelError(
            f"{classifier.name} gives an image other logits when another one stands beside it; let its batch norms use "
            "their running statistics, as in eval mode"
        )
