"""The work that an attack asks of the networks, counted from outside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attnshift.attack.prepare import PreparedBatch
from attnshift.baselines.edits import Edit
from attnshift.defences.defended import Defended
from attnshift.diffusion.backbone import Backbone, Prediction
from attnshift.ensemble.surrogates import Surrogates

__all__ = ["Effort"]


@dataclass
class Effort:
    """Images that networks have worked on: ``gradients`` of surrogates, each view and each
    surrogate counting one, and ``denoisings``, evaluations of the denoiser."""

    gradients: int = 0
    denoisings: int = 0

    def of_surrogates(self, surrogates: Surrogates) -> Surrogates:
        """The same surrogates; every image that their networks see for a gradient counts, and what
        a defence before them denoises."""
        return replace(surrogates, classifiers=[self._counted(each) for each in surrogates.classifiers])

    def of_batch(self, batch: PreparedBatch) -> PreparedBatch:
        """The same batch; what its iterations and its choice of an iterate ask for counts.

        Preparation is not in it, which runs share (inversion, reconstruction).
        """
        backbone: Any = _CountedBackbone(batch.render.backbone, self._denoised)
        render = replace(batch.render, backbone=backbone)
        return replace(batch, render=render, surrogates=self.of_surrogates(batch.surrogates))

    def of_edit(self, edit: Edit) -> Edit:
        """The same prepared attack of a baseline, counted so as well."""
        backbone: Any = _CountedBackbone(edit.given.backbone, self._denoised)
        given = replace(edit.given, backbone=backbone, surrogates=self.of_surrogates(edit.given.surrogates))
        return replace(edit, given=given)

    def _counted(self, classifier: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if not isinstance(classifier, Defended):
            return _Counted(classifier, self._seen)
        defence: Any = classifier.defence
        if hasattr(defence, "backbone"):
            defence = replace(defence, backbone=_CountedBackbone(defence.backbone, self._denoised))
        inner: Any = self._counted(classifier.classifier)
        return Defended(inner, defence, classifier.name)

    def _seen(self, images: Tensor) -> None:
        if torch.is_grad_enabled() and images.requires_grad:
            self.gradients += len(images)

    def _denoised(self, latents: Tensor) -> None:
        self.denoisings += len(latents)


class _Counted:
    """A classifier that tells what it is shown."""

    def __init__(self, classifier: Callable[[Tensor], Tensor], tell: Callable[[Tensor], None]):
        self._classifier, self._tell = classifier, tell

    def __call__(self, images: Tensor) -> Tensor:
        self._tell(images)
        return self._classifier(images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._classifier, name)


class _CountedBackbone:
    """A diffusion model that tells what it denoises."""

    def __init__(self, backbone: Backbone, tell: Callable[[Tensor], None]):
        self._backbone, self._tell = backbone, tell

    def denoise(self, latents: Tensor, *inputs: Any) -> Prediction:
        self._tell(latents)
        return self._backbone.denoise(latents, *inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)
