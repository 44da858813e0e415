"""Runs of a baseline: an attack on pixels, without a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from attnshift.attack.budget import budget_of
from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.loop import Snapshot
from attnshift.attack.pixel_attack import run_baseline, surrogates_of
from attnshift.attack.prepare import Task
from attnshift.attack.remarks import idle_options
from attnshift.baselines.kinds import Baseline
from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item
from attnshift.diffusion.backbone import Backbone
from attnshift.execution.work import BatchResult, effort_columns
from attnshift.metrics.budget import Budget
from attnshift.randomness import random_step
from attnshift.recipes.reading import baseline_of
from attnshift.recipes.schema import BaselineRecipe
from attnshift.types import Goals

__all__ = ["PixelWork"]


@dataclass(frozen=True)
class PixelWork:
    recipe: BaselineRecipe
    attack: Baseline
    budget: Budget | None = None

    @classmethod
    def of(cls, recipe: BaselineRecipe) -> PixelWork:
        """Build the attack that ``recipe`` names, or raise ``RecipeError``."""
        return cls(recipe, baseline_of(recipe), budget_of(recipe.budget))

    @property
    def weights(self) -> Mapping[str, str]:
        return {}

    def remarks(self, backbone: Backbone | None) -> tuple[str, ...]:
        return tuple(idle_options("baseline", self.attack))

    def check(self, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: int) -> None:
        goals = Goals.of([items[0].label], [items[0].target], backbone.device)
        probe = torch.full((1, 3, size, size), 0.5, device=backbone.device)
        self.attack.check(surrogates_of(classifiers, goals), probe)

    def carry_out(
        self,
        backbone: Backbone,
        classifiers: Sequence[Classifier],
        tasks: Sequence[Task],
        watch: Callable[[Snapshot], None] | None = None,
        inversions: Inversions = compute_uncached,
    ) -> BatchResult:
        outcome = run_baseline(self.attack, self.budget, self.recipe.seed, classifiers, tasks, backbone.device)
        images, attacked, key = outcome.clean, outcome.attacked, outcome.key
        noise = random_step(images, attacked, key.seed, key.ids).clamp(0, 1)
        arms = {"clean": images, "noise": noise, "attack": attacked}
        effort = effort_columns(outcome.effort, len(tasks))
        spent = [None] * len(tasks) if outcome.spent is None else outcome.spent.tolist()
        return BatchResult.judged(outcome.surrogates, arms, [effort | {"spent": each} for each in spent])
