"""A classifier behind a defence is a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.backbone import Backbone

__all__ = ["ClassifierDefence", "Classify", "Defence", "DefenceCache", "Defended", "NeedsBackbone"]

Classify = Callable[[Tensor], Tensor]
"""Images [batch,3,height,width] to logits [batch,classes]."""


@runtime_checkable
class Defence(Protocol):
    """Changes the image: images [batch,3,height,width] in [0,1] to images of the same shape, dtype and device.

    Whatever it draws at random is drawn by seed and by the image's content. ``differentiable``: a gradient passes.
    """

    differentiable: ClassVar[bool]

    def __call__(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class ClassifierDefence(Protocol):
    """Changes the classifier: its logits [batch,classes] come from many questions to the undefended one."""

    differentiable: ClassVar[bool]

    def poll(self, classify: Classify, images: Tensor) -> Tensor: ...


@runtime_checkable
class NeedsBackbone(Protocol):
    """The options of a defence that is one only on a diffusion model."""

    differentiable: ClassVar[bool]

    def on(self, backbone: Backbone) -> Defence: ...


@dataclass(frozen=True, eq=False, init=False)
class Defended(Classifier):
    """``classifier`` as it answers behind ``defence``, with its network, preprocessing, classes and class names.

    Each image passes the defence alone, so that batch mates change no bit of what it becomes. Grad-CAM, which asks the
    network itself, looks past the defence.
    """

    classifier: Classifier
    defence: Defence | ClassifierDefence

    def __init__(self, classifier: Classifier, defence: Defence | ClassifierDefence, name: str = "", **changes: Any):
        # ``dataclasses.replace`` hands over all fields; what it changes has to change behind the defence.
        inner = replace(classifier, **changes) if changes else classifier
        super().__init__(
            name or f"{defence}+{inner.name}", inner.network, inner.preprocessing, inner.classes, inner.class_names
        )
        object.__setattr__(self, "classifier", inner)
        object.__setattr__(self, "defence", defence)

    @property
    def differentiable(self) -> bool:
        """Whether a gradient passes, through all defences of a chain."""
        inner = self.classifier
        return self.defence.differentiable and (not isinstance(inner, Defended) or inner.differentiable)

    def __call__(self, images: Tensor) -> Tensor:
        if isinstance(self.defence, ClassifierDefence):
            return self.defence.poll(self.classifier, images)
        return self.classifier(torch.cat([self.defence(image) for image in images.split(1)]))


class DefenceCache:
    """``images`` [batch,3,height,width], shown to one classifier after the other; what stands before several of them
    acts once.

    It keeps what it made of the images; hold it no longer than them.
    """

    def __init__(self, images: Tensor):
        self._made: list[tuple[tuple[Defence, ...], Tensor]] = [((), images)]

    def to(self, classifier: Classifier) -> Tensor:
        """Logits [batch,classes] of ``classifier``, equal to ``classifier(images)``."""
        passed: tuple[Defence, ...] = ()
        while isinstance(classifier, Defended) and not isinstance(classifier.defence, ClassifierDefence):
            passed, classifier = (*passed, classifier.defence), classifier.classifier
        return classifier(self._behind(passed))

    def _behind(self, defences: tuple[Defence, ...]) -> Tensor:
        for known, images in self._made:
            if known == defences:
                return images
        made = torch.cat([defences[-1](image) for image in self._behind(defences[:-1]).split(1)])
        self._made.append((defences, made))
        return made
