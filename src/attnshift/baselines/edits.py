"""Records of an attack through a diffusion model: what it is given, and what it prepares."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from attnshift.batching import batch_record, constant, per_image
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.surrogates import Surrogates
from attnshift.types import RandomKey

__all__ = ["Edit", "EditInput"]


@batch_record
class EditInput:
    """A batch to attack: ``images`` [batch,3,height,width] in [0,1], the surrogates with their
    goals, the diffusion model, a prompt for each image, and the key of its random draws."""

    backbone: Backbone = constant()
    surrogates: Surrogates = per_image()
    images: Tensor = per_image()
    prompts: tuple[str, ...] = per_image()
    key: RandomKey = per_image()

    def decoded(self, latents: Tensor, residual: Tensor | None) -> Tensor:
        """The images that ``latents`` without noise show, near [0,1]. ``residual``
        [batch,3,height,width] is what the autoencoder loses of each; None adds nothing."""
        shown = self.backbone.decode(latents)
        return shown if residual is None else shown + residual


@batch_record
class Edit(ABC):
    """A prepared attack on ``given``; subclasses are batch records as well."""

    given: EditInput = per_image()

    @abstractmethod
    def floor(self) -> Tensor:
        """The images at strength 0, the control arm: [batch,3,height,width] in [0,1]."""

    @abstractmethod
    def __call__(self, strengths: Tensor) -> Tensor:
        """The attacked images, each with its own of ``strengths`` [batch] on the lengths."""
