"""The contract of classifier sources."""

from __future__ import annotations

import torch

from attnshift.classifiers import SOURCES
from attnshift.classifiers.classifier import Classifier, Source
from attnshift.classifiers.probe import check_attackable, probe
from attnshift.registry import check
from attnshift.testing.models import pictures
from attnshift.testing.requirements import require, require_close, require_finite, require_shape

__all__ = ["check_source"]


def check_source(source: Source, name: str) -> None:
    """Hold a source to its contract by the classifier that it calls ``name``,
    on three images of 64 pixels.

    Raises ``ModelError``, as a command would,
    for a network that gives no logits or passes no gradient.
    """
    check(SOURCES, getattr(source, "__name__", "source"), source)
    classifier = source(name)
    kind = type(classifier).__name__
    require(isinstance(classifier, Classifier), f"the source gives a {kind}; use Classifier.wrap")
    require(not classifier.network.training, "the network is in training mode")
    weights = classifier.network.parameters()
    require(not any(each.requires_grad for each in weights), "weights of the network take gradients")
    check_attackable(counted := probe(classifier))
    shown = pictures(3)
    with torch.no_grad():
        together = counted(shown)
        require_shape(together, (3, counted.classes), "what the classifier gives")
        require(together.dtype == torch.float32, f"logits are {together.dtype}, not float32")
        require_finite(together, "what the classifier gives")
        for at in range(3):
            alone = counted(shown[at : at + 1]).softmax(1)
            expected = together[at : at + 1].softmax(1)
            require_close(alone, expected, "an image has other probabilities when it is alone", 1e-4, 1e-5)
