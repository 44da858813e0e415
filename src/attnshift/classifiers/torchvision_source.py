"""Classifiers from torchvision, with the preprocessing that belongs to their weights."""

from __future__ import annotations

from torchvision import models

from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.downloaded import only_weights
from attnshift.errors import ModelError
from attnshift.registry import suggest
from attnshift.untrusted import UNUSABLE, check_finite, reason

__all__ = ["load_torchvision"]


def load_torchvision(name: str) -> Classifier:
    """Classifier ``MODEL`` with torchvision's default weights, or ``MODEL@WEIGHTS``.

    An example is ``resnet50@IMAGENET1K_V1``. torchvision publishes weights as pickles; only tensors
    are read from them. Raises ``ModelError`` if the model or the weights are unknown or cannot be
    loaded.
    """
    model, _, wanted = name.partition("@")
    # This module holds classifiers alone. Detectors, segmenters, video and quantized models have
    # their own modules.
    known = models.list_models(module=models)
    if model not in known:
        hint = suggest(model, known)
        raise ModelError(f"torchvision has no classifier '{model}'{hint}; torchvision.models.list_models() lists them")
    choices = models.get_model_weights(model)
    if wanted not in ("", *choices.__members__):
        raise ModelError(f"{model} has no weights '{wanted}'; known: {', '.join(choices.__members__)}")
    weights = choices[wanted] if wanted else choices.DEFAULT  # type: ignore[attr-defined]
    try:
        with only_weights():
            network = models.get_model(model, weights=weights)
    except UNUSABLE as error:
        raise ModelError(
            f"cannot load 'torchvision:{name}': {reason(error)}; check the network and torch's cache"
        ) from error
    check_finite(network.state_dict(), f"torchvision:{name}")
    names = tuple(weights.meta["categories"])
    return Classifier(f"torchvision:{name}", network, _preprocessing(weights), len(names), names)


def _preprocessing(weights: models.WeightsEnum) -> Preprocessing:
    """Preprocessing of ``weights``: their sizes are those of the shorter side."""
    evaluated = weights.transforms()
    (size,), (resized,) = evaluated.crop_size, evaluated.resize_size
    return Preprocessing(
        (size, size),
        evaluated.interpolation.value,
        tuple(evaluated.mean),
        tuple(evaluated.std),
        None if resized == size else (resized, resized),
    )
