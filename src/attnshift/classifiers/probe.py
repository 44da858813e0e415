"""Two random images tell whether a network is a classifier at all, whatever source it came from."""

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
"""How far logits of an image may move, relative to the largest of them, where it is shown alone: rounding is far less,
and statistics of a batch are far more."""


@torch.no_grad()
def probe(classifier: Classifier) -> Classifier:
    """``classifier``, once it has given finite logits [2,classes] that differ for two random images.

    Its classes are counted where it states 0. Raises ModelError, in one line, for anything else than logits, and for
    logits of an image that depend on what else stands in its batch.
    """
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
        # Not the plain sum, which is constant after a log softmax over two classes, or nearly so.
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
    """Two images that need not be resized."""
    preprocessing = classifier.preprocessing
    sides = preprocessing.resized or preprocessing.size
    images = torch.from_numpy(generator("probe").random((2, 3, *sides))).to(torch.get_default_dtype())
    return images.to(next(classifier.network.parameters(), images).device)


def _answer(classifier: Classifier, images: Tensor) -> object:
    """What the network gives for ``images``."""
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
    # Where the same question has two answers, the network draws at random, and this tells nothing.
    if isinstance(again, Tensor) and torch.equal(again, together):
        raise ModelError(
            f"{classifier.name} gives an image other logits when another one stands beside it; let its batch norms use "
            "their running statistics, as in eval mode"
        )
