"""A model that another library holds, attacked as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnshift.attack.latent_attack import LatentAttack
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import ImageError, LabelError, ModelError, RecipeError, UserError
from attnshift.recipes.reading import load_latent_recipe
from attnshift.recipes.schema import Recipe

__all__ = ["Attacker", "WrappedModel", "missing"]

_ROUNDING = 1e-5
"""How far outside of [0,1] an image may be because another library normalised it and took that back."""


class WrappedModel(nn.Module):
    """``answer``, from images in [0,1] to logits, as a network without weights.

    The model behind it keeps its mode and its weights' gradients, which a classifier's own network gives up.
    """

    def __init__(self, answer: Callable[[Tensor], Tensor], device: torch.device):
        super().__init__()
        self.answer, self.device = answer, device

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images.to(self.device))


@dataclass(frozen=True, eq=False)
class Attacker:
    """What an adapter is told once, and how it then attacks the model that its library holds."""

    backbone: Backbone
    recipe: Recipe
    class_names: tuple[str, ...]
    batch: int

    @classmethod
    def of(cls, pipeline: str | Backbone, recipe: str | Recipe, class_names: Sequence[str], batch: int) -> Attacker:
        """``pipeline`` and ``recipe`` by name or as objects; ``class_names`` in the order of the model's logits."""
        if isinstance(class_names, str) or not class_names:
            raise ModelError("class_names must list the model's classes in the order of its logits; prompts name them")
        if not isinstance(batch, int) or batch < 1:
            raise RecipeError(f"{batch!r} images cannot be attacked together; give a whole number from 1 on")
        return cls(
            load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline,
            load_latent_recipe(recipe) if isinstance(recipe, str) else recipe,
            tuple(class_names),
            batch,
        )

    def __call__(
        self,
        answer: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Adversarial images for the model that ``answer`` asks, on the device of ``images`` [batch,3,side,side].

        Without ``labels`` [batch] the classes that the model sees take their place. With ``targets`` [batch], images
        that the model sees as their target already are returned as they are.
        """
        images = _settled(images)
        classifier = Classifier.wrap(
            WrappedModel(answer, images.device), "the model", images.shape[-1], [0.0] * 3, [1.0] * 3,
            class_names=self.class_names,
        )  # fmt: skip
        with torch.no_grad():
            seen = classifier(images).argmax(1)
        labels = seen if labels is None else _numbered("labels", labels, seen)
        attack = LatentAttack(self.backbone, [classifier], self.recipe, self.batch, str(images.device))
        if targets is None:
            return attack(images, labels).images
        targets = _numbered("targets", targets, seen)
        still, found = seen != targets, images.clone()
        if still.any():
            found[still] = attack(images[still], labels[still], targets=targets[still]).images
        return found


def missing(library: str, error: ModuleNotFoundError) -> UserError:
    module = (error.name or library).partition(".")[0]
    return UserError(f"this adapter needs {module}, which is not installed: pip install {library}")


def _settled(images: Tensor) -> Tensor:
    """``images`` in fp32, without what rounding put outside of [0,1]."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ImageError(f"images have shape {tuple(images.shape)}; expected [batch, 3, side, side]")
    images = images.detach().float()
    clamped = images.clamp(0, 1)
    return clamped if bool((images - clamped).abs().max() < _ROUNDING) else images


def _numbered(kind: str, given: Tensor, seen: Tensor) -> Tensor:
    if given.shape != seen.shape or given.is_floating_point():
        raise LabelError(
            f"{kind} are {given.dtype} of shape {tuple(given.shape)}; expected whole numbers {tuple(seen.shape)}"
        )
    return given.to(seen)
