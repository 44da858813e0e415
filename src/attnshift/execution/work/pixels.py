"""Runs of a baseline: an attack on pixels, or a published one through a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from attnshift.attack.budget import budget_of
from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.pixel_attack import check_runnable, run_baseline
from attnshift.attack.prepare import Task
from attnshift.attack.remarks import idle_options
from attnshift.attack.run import Watch
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.kinds import Baseline
from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item
from attnshift.diffusion.backbone import Backbone
from attnshift.execution.work import BatchResult, caption_of, effort_columns
from attnshift.metrics.budget import Budget
from attnshift.randomness import random_step
from attnshift.recipes.reading import baseline_of
from attnshift.recipes.schema import BaselineRecipe
from attnshift.sizes import Size

__all__ = ["PixelWork"]


@dataclass(frozen=True)
class PixelWork:
    recipe: BaselineRecipe
    attack: Baseline | DiffusionBaseline
    budget: Budget | None = None

    @classmethod
    def of(cls, recipe: BaselineRecipe) -> PixelWork:
        """Build the attack that ``recipe`` names, or raise ``RecipeError``."""
        return cls(recipe, baseline_of(recipe), budget_of(recipe.budget))

    @property
    def weights(self) -> Mapping[str, str]:
        return {}

    def remarks(self, backbone: Backbone | None, classifiers: Sequence[Classifier]) -> tuple[str, ...]:
        return tuple(idle_options("baseline", self.attack))

    def check(self, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: Size) -> None:
        probe = torch.full((3, *size), 0.5)
        tasks = [
            Task(
                item.id,
                probe,
                item.label,
                item.class_name,
                None,
                item.target,
                caption=caption_of(item.caption, item.class_name),
            )
            for item in items
        ]
        check_runnable(self.attack, classifiers, tasks, backbone, backbone.device)

    def carry_out(
        self,
        backbone: Backbone,
        classifiers: Sequence[Classifier],
        tasks: Sequence[Task],
        watch: Watch | None = None,
        inversions: Inversions = compute_uncached,
    ) -> BatchResult:
        seed, device = self.recipe.seed, backbone.device
        outcome = run_baseline(self.attack, self.budget, seed, classifiers, tasks, device, backbone)
        images, attacked, key = outcome.clean, outcome.attacked, outcome.key
        noise = random_step(images, attacked, key.seed, key.ids).clamp(0, 1)
        arms = {"clean": images, **outcome.controls, "noise": noise, "attack": attacked}
        effort = effort_columns(outcome.effort, len(tasks))
        spent = [None] * len(tasks) if outcome.spent is None else outcome.spent.tolist()
        return BatchResult.judged(outcome.surrogates, arms, [effort | {"spent": each} for each in spent])
