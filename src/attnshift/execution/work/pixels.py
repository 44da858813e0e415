"""Runs of a baseline: an attack on pixels, without a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.loop import Snapshot
from attnshift.attack.prepare import Task
from attnshift.baselines import BASELINES
from attnshift.baselines.pixel import Baseline
from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item
from attnshift.data.images import quantise
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.surrogates import Surrogates
from attnshift.execution.work import BatchResult
from attnshift.losses import CLASSIFICATION
from attnshift.randomness import random_step
from attnshift.recipes.schema import BaselineRecipe
from attnshift.registry import build
from attnshift.types import Goals, RandomKey

__all__ = ["PixelWork"]


@dataclass(frozen=True)
class PixelWork:
    recipe: BaselineRecipe
    attack: Baseline

    @classmethod
    def of(cls, recipe: BaselineRecipe) -> PixelWork:
        """Build the attack that ``recipe`` names, or raise ``RecipeError``."""
        return cls(recipe, build(BASELINES, recipe.baseline.attack, recipe.baseline.options))

    def check(self, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: int) -> None:
        goals = Goals.of([items[0].label], [items[0].target], backbone.device)
        probe = torch.full((1, 3, size, size), 0.5, device=backbone.device)
        self.attack.check(_surrogates(classifiers, goals), probe)

    def carry_out(
        self,
        backbone: Backbone,
        classifiers: Sequence[Classifier],
        tasks: Sequence[Task],
        watch: Callable[[Snapshot], None] | None = None,
        inversions: Inversions = compute_uncached,
    ) -> BatchResult:
        images = quantise(torch.stack([task.image for task in tasks]).to(backbone.device))
        goals = Goals.of([task.label for task in tasks], [task.target for task in tasks], backbone.device)
        surrogates = _surrogates(classifiers, goals)
        key = RandomKey(self.recipe.seed, tuple(task.identity for task in tasks), 0)
        attacked = _rounded(images, self.attack(surrogates, images, key))
        noise = random_step(images, attacked, key.seed, key.identities).clamp(0, 1)
        arms = {"clean": images, "noise": noise, "attack": attacked}
        return BatchResult.judged(surrogates, arms, [{} for _ in tasks])


def _rounded(images: Tensor, attacked: Tensor) -> Tensor:
    """``attacked`` in steps of 1/255 from ``images``, towards them: 8-bit files lie within the radius as well."""
    # What is a whole step but for rounding errors stays one.
    return images + ((attacked - images) * 255 * (1 + 1e-4)).trunc() / 255


def _surrogates(classifiers: Sequence[Classifier], goals: Goals) -> Surrogates:
    return Surrogates(classifiers, build(CLASSIFICATION, "cross_entropy", {}), goals)
