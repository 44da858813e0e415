"""Attacks on a model of another library, without changes to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnshift.attack.inputs import class_numbers, given_images
from attnshift.attack.interface import check_batch
from attnshift.attack.latent_attack import LatentAttack
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import LabelError, ModelError, RecipeError, UserError
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.sizes import size_of
from attnshift.terminal import plural

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
        check_batch(batch)
        loaded = load_recipe(recipe) if isinstance(recipe, str) else recipe
        if isinstance(loaded, BaselineRecipe):
            raise RecipeError(f"recipe '{loaded.name}' attacks pixels; use attnshift.PixelAttack")
        return cls(
            load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline,
            loaded,
            tuple(class_names),
            batch,
        )

    @torch.inference_mode(False)
    def __call__(
        self,
        answer: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Adversarial images for the model behind ``answer``, on the device of ``images``.

        ``images`` are [batch,3,height,width] in [0,1]. Without ``labels`` [batch], the predicted
        classes are used. With ``targets`` [batch], images that are already seen as their target are
        returned unchanged.
        """
        images = given_images(_clamped(images))
        classifier = Classifier.wrap(
            WrappedModel(answer, images.device), "the model", size_of(images), [0.0] * 3, [1.0] * 3,
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
    """``images`` with values clamped to [0,1] where they lie outside by no more than rounding."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or not images.numel():
        return images
    clamped = images.detach().clamp(0, 1)
    return clamped if bool((images.detach() - clamped).abs().max() < _ROUNDING) else images


def _class_numbers(kind: str, given: Tensor, seen: Tensor) -> Tensor:
    numbers = class_numbers(kind, given)
    if len(numbers) != len(seen):
        raise LabelError(f"{plural(len(seen), 'image')} and {plural(len(numbers), kind[:-1])}; give every image one")
    return torch.tensor(numbers).to(seen)
