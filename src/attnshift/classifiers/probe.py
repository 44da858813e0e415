"""Two random images tell whether a network is a classifier at all, whatever source it came from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.errors import ModelError
from attnshift.randomness import generator

if TYPE_CHECKING:
    from attnshift.classifiers.classifier import Classifier

__all__ = ["probe"]


@torch.no_grad()
def probe(classifier: Classifier) -> Classifier:
    """``classifier``, once it has given finite logits [2,classes] that differ for two random images.

    Its classes are counted where it states 0. Raises ModelError, in one line, for anything else than logits.
    """
    name, output = classifier.name, _answer(classifier)
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
    return replace(classifier, classes=shape[1])


def _answer(classifier: Classifier) -> object:
    """What the network gives for two images that need not be resized."""
    preprocessing = classifier.preprocessing
    sides = preprocessing.resized or preprocessing.size
    images = torch.from_numpy(generator("probe").random((2, 3, *sides))).to(torch.get_default_dtype())
    weight = next(classifier.network.parameters(), images)
    inputs = preprocessing(images.to(weight.device))
    try:
        return classifier.network(inputs)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{classifier.name} cannot take images {tuple(inputs.shape)}: {reason}") from error
