"""Protocols of defences, and classifiers behind a defence, which are classifiers themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.backbone import Backbone
from attnshift.types import RandomKey

__all__ = ["ClassifierDefence", "Classify", "Defence", "DefenceCache", "Defended", "KeyedDefence", "NeedsBackbone"]

Classify = Callable[[Tensor], Tensor]
"""Images [batch,3,height,width] to logits [batch,classes]."""


@runtime_checkable
class Defence(Protocol):
    """Change of the image: images [batch,3,height,width] in [0,1] -> images of the same kind.

    Shape, dtype and device stay. Random draws depend on the seed and the image's content.
    ``differentiable`` is true if a gradient passes.
    """

    differentiable: ClassVar[bool]

    def __call__(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class ClassifierDefence(Protocol):
    """Change of the classifier: ``poll`` calls ``classify`` many times and returns logits.

    ``differentiable`` is true if a gradient passes.
    """

    differentiable: ClassVar[bool]

    def poll(self, classify: Classify, images: Tensor) -> Tensor:
        """Logits [batch,classes] of images [batch,3,height,width] in [0,1]."""
        ...


@runtime_checkable
class KeyedDefence(ClassifierDefence, Protocol):
    """Change of the classifier whose draws an attack names, in every iteration anew.

    Without a ``key`` the draws depend on the seed and the image's content.
    """

    keyed: ClassVar[bool]

    def poll(self, classify: Classify, images: Tensor, key: RandomKey | None = None) -> Tensor:
        """Logits [batch,classes] of images [batch,3,height,width] in [0,1], with the draws of
        ``key``."""
        ...


@runtime_checkable
class NeedsBackbone(Protocol):
    """Options of a defence that needs a diffusion model; ``on`` returns the defence."""

    @property
    def differentiable(self) -> bool:
        """True if a gradient passes."""
        ...

    def on(self, backbone: Backbone) -> Defence | ClassifierDefence:
        """The defence that runs through ``backbone``."""
        ...


@dataclass(frozen=True, eq=False, init=False)
class Defended(Classifier):
    """``classifier`` behind ``defence``.

    Network, preprocessing and classes are the classifier's own.

    Each image passes the defence alone, so batch mates change no bit of the result. Grad-CAM uses
    the network itself and skips the defence.
    """

    classifier: Classifier
    defence: Defence | ClassifierDefence

    def __init__(self, classifier: Classifier, defence: Defence | ClassifierDefence, name: str = "", **changes: Any):
        # ``dataclasses.replace`` passes all fields. Its changes apply to the classifier behind the
        # defence.
        inner = replace(classifier, **changes) if changes else classifier
        super().__init__(
            name or f"{defence}+{inner.name}",
            inner.network,
            inner.preprocessing,
            inner.classes,
            inner.class_names,
            inner.order,
        )
        object.__setattr__(self, "classifier", inner)
        object.__setattr__(self, "defence", defence)

    @property
    def differentiable(self) -> bool:
        """True if a gradient passes all defences of a chain."""
        inner = self.classifier
        return self.defence.differentiable and (not isinstance(inner, Defended) or inner.differentiable)

    @property
    def takes_key(self) -> bool:
        """True if a call may name the draws of a defence of the chain."""
        return isinstance(self.defence, KeyedDefence) or _takes_key(self.classifier)

    def __call__(self, images: Tensor, key: RandomKey | None = None) -> Tensor:
        inner: Any = self.classifier
        classify: Classify = partial(inner, key=key) if _takes_key(inner) else inner
        if isinstance(self.defence, KeyedDefence):
            return self.defence.poll(classify, images, key)
        if isinstance(self.defence, ClassifierDefence):
            return self.defence.poll(classify, images)
        return classify(torch.cat([self.defence(image) for image in images.split(1)]))


def _takes_key(classifier: Classifier) -> bool:
    return getattr(classifier, "takes_key", False)


class DefenceCache:
    """Logits of several classifiers for the same ``images`` [batch,3,height,width].

    A defence that several classifiers share is applied once. The results of defences are kept as
    long as this object exists.
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
