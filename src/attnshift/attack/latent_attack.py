"""The attack as one call, for use from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, common_classes
from attnshift.classifiers.probe import check_attackable
from attnshift.data.datasets import check_class, check_target, identify
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.fusion import FusionRule
from attnshift.errors import ImageError, LabelError, RecipeError
from attnshift.losses.objective import LossTerm, StatefulTerm
from attnshift.recipes.reading import load_latent_recipe
from attnshift.recipes.schema import Recipe

__all__ = ["AttackResult", "LatentAttack"]


@dataclass(frozen=True)
class AttackResult:
    """images [batch,3,height,width], multiples of 1/255; margins [models,batch] of the surrogates on exactly these
    images, negative where a surrogate is fooled, which in a targeted attack means that it sees the target; iterations
    [batch], the iterate that was kept."""

    images: Tensor
    margins: Tensor
    iterations: Tensor

    @property
    def fooled(self) -> Tensor:
        """Images that fool every surrogate, [batch]."""
        return (self.margins < 0).all(0)


class LatentAttack:
    """Attack images in the latent space of a diffusion model.

    ``pipeline`` and ``surrogates`` are names, as on the command line, or loaded objects; ``recipe`` is a preset's name,
    the path of a recipe file, or a ``Recipe``. ``batch`` images are attacked together.

    ``terms`` are loss terms of your own by name, and ``rule`` is a fusion rule in place of the recipe's. A section of
    the recipe with a term's name sets its weight and schedule; without one its weight is 1.

    >>> attack = LatentAttack("lab", ["lab:resnet"], "fast")           # doctest: +SKIP
    >>> result = attack(images, labels, ["mug", "tree"])               # doctest: +SKIP
    """

    def __init__(
        self,
        pipeline: str | Backbone,
        surrogates: Sequence[str | Classifier],
        recipe: str | Recipe = "fast",
        batch: int = 8,
        device: str = "cpu",
        terms: Mapping[str, LossTerm | StatefulTerm] | None = None,
        rule: FusionRule | None = None,
    ):
        self.backbone: Backbone = load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        self.backbone.to(device)
        self.classifiers = [
            (load_classifier(each) if isinstance(each, str) else each).to(device) for each in surrogates
        ]
        if self.classifiers:
            common_classes(self.classifiers)
        for classifier in self.classifiers:
            check_attackable(classifier)
        self.method = Method.of(load_latent_recipe(recipe) if isinstance(recipe, str) else recipe, terms, rule)
        self.batch = batch

    def __call__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int],
        class_names: Sequence[str] = (),
        masks: Tensor | None = None,
        targets: Tensor | Sequence[int] | None = None,
    ) -> AttackResult:
        """Attack ``images`` [batch,3,side,side] in [0,1] with true ``labels``.

        ``class_names`` names the true class of each image; where it is empty the first surrogate's own names are used.
        ``masks`` [batch,1,side,side] in [0,1] say where the objects are, for recipes whose mask is given. ``targets``
        are the classes to be seen instead; without them any wrong one will do.
        """
        self.backbone.check_size(images.shape[-1])
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ImageError(f"images have shape {tuple(images.shape)}; expected [batch, 3, side, side]")
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise ImageError("images have values outside [0,1]; divide 8-bit values by 255")
        numbers = [int(label) for label in labels]
        if len(numbers) != len(images) or (class_names and len(class_names) != len(images)):
            raise LabelError(f"{len(images)} images, {len(numbers)} labels and {len(class_names)} class names")
        known = self.classifiers[0].class_names
        if not class_names and any(not 0 <= label < len(known) for label in numbers):
            raise LabelError(f"no class names are known for the labels {sorted(set(numbers))}; pass class_names")
        names = list(class_names) or [known[label] for label in numbers]
        if masks is not None and self.method.recipe.mask.source != "given":
            raise RecipeError("masks have no use: the recipe's mask.source is not 'given'")
        if masks is not None and masks.shape != images[:, :1].shape:
            raise ImageError(f"masks have shape {tuple(masks.shape)}; expected {tuple(images[:, :1].shape)}")
        given = [None] * len(images) if masks is None else list(masks)
        aims = [None] * len(images) if targets is None else self._checked(targets, numbers)
        tasks = [
            Task(identify(_pixels(image), label, name, target), image, label, name, mask, target)
            for image, label, name, mask, target in zip(images, numbers, names, given, aims, strict=True)
        ]
        parts = [self._attack(tasks[at : at + self.batch]) for at in range(0, len(tasks), self.batch)]
        return AttackResult(
            torch.cat([part.images for part in parts]),
            torch.cat([part.margins for part in parts], 1),
            torch.cat([part.iterations for part in parts]),
        )

    def _checked(self, targets: Tensor | Sequence[int], labels: Sequence[int]) -> list[int]:
        numbers = [int(target) for target in targets]
        if len(numbers) != len(labels):
            raise LabelError(f"{len(labels)} images and {len(numbers)} targets; give every image one")
        for at, (target, label) in enumerate(zip(numbers, labels, strict=True)):
            check_class("target", target, self.classifiers[0].classes, f"image {at}")
            check_target(target, label, f"image {at}")
        return numbers

    def _attack(self, tasks: Sequence[Task]) -> AttackResult:
        batch = prepare_batch(self.method, self.backbone, self.classifiers, tasks)
        outcome = run_attack(batch)
        return AttackResult(outcome.images, batch.surrogates.judge(outcome.images)[1], outcome.iterations)


def _pixels(image: Tensor) -> bytes:
    return (image.detach().cpu().float() * 255).round().byte().numpy().tobytes()
