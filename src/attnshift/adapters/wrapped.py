"""Attacks on a model of another library, without changes to it."""

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

__all__ = ["Attacker", "WrappedModel", "missing_library"]

_ROUNDING = 1e-5
"""Largest distance of an image from [0,1] that rounding in normalisation and its inverse can cause.
"""


class WrappedModel(nn.Module):
    """Network without weights around ``answer``, a function from images in [0,1] to logits.

    A ``Classifier`` sets its network to evaluation mode and stops gradients of its weights. The
    model behind ``answer`` is not touched.
    """

    def __init__(self, answer: Callable[[Tensor], Tensor], device: torch.device):
        super().__init__()
        self.answer, self.device = answer, device

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images.to(self.device))


@dataclass(frozen=True, eq=False)
class Attacker:
    """Options of an adapter, and the attack on the model of its library."""

    backbone: Backbone
    recipe: Recipe
    class_names: tuple[str, ...]
    batch: int

    @classmethod
    def of(cls, pipeline: str | Backbone, recipe: str | Recipe, class_names: Sequence[str], batch: int) -> Attacker:
        """Attacker from a ``pipeline`` and a ``recipe``, each a name or an object.

        ``class_names`` are in the order of the model's logits. Raises ``ModelError`` or
        ``RecipeError`` for options that cannot be used.
        """
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
        """Adversarial images for the model behind ``answer``, on the device of ``images``.

        ``images`` are [batch,3,side,side] in [0,1]. Without ``labels`` [batch], the predicted
        classes are used. With ``targets`` [batch], images that are already seen as their target are
        returned unchanged.
        """
        images = _clamped(images)
        classifier = Classifier.wrap(
            WrappedModel(answer, images.device), "the model", images.shape[-1], [0.0] * 3, [1.0] * 3,
            class_names=self.class_names,
        )  # fmt: skip
        with torch.no_grad():
            seen = classifier(images).argmax(1)
        labels = seen if labels is None else _class_numbers("labels", labels, seen)
        attack = LatentAttack(self.backbone, [classifier], self.recipe, self.batch, str(images.device))
        if targets is None:
            return attack(images, labels).images
        targets = _class_numbers("targets", targets, seen)
        still, found = seen != targets, images.clone()
        if still.any():
            found[still] = attack(images[still], labels[still], targets=targets[still]).images
        return found


def missing_library(library: str, error: ModuleNotFoundError) -> UserError:
    """Error for an adapter whose ``library`` cannot be imported."""
    module = (error.name or library).partition(".")[0]
    return UserError(f"this adapter needs {module}, which is not installed: pip install {library}")


def _clamped(images: Tensor) -> Tensor:
    """``images`` in fp32, with values just outside [0,1] clamped.

    Raises ``ImageError`` for another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ImageError(f"images have shape {tuple(images.shape)}; expected [batch, 3, side, side]")
    images = images.detach().float()
    clamped = images.clamp(0, 1)
    return clamped if bool((images - clamped).abs().max() < _ROUNDING) else images


def _class_numbers(kind: str, given: Tensor, seen: Tensor) -> Tensor:
    if given.shape != seen.shape or given.is_floating_point():
        raise LabelError(
            f"{kind} are {given.dtype} of shape {tuple(given.shape)}; expected whole numbers {tuple(seen.shape)}"
        )
    return given.to(seen)
