"""An attack on pixels as one call, for use from Python: the baselines, on the same terms as the
latent attack."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from attnshift.attack.budget import budget_of
from attnshift.attack.effort import Effort
from attnshift.attack.interface import AttackResult, check_batch, checked_tasks, in_batches, load_surrogates
from attnshift.attack.prepare import Task
from attnshift.attack.remarks import idle_options
from attnshift.baselines.kinds import Baseline
from attnshift.baselines.rounding import towards
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.losses import CLASSIFICATION
from attnshift.metrics.budget import Budget
from attnshift.recipes.reading import baseline_of, load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.registry import build
from attnshift.types import Goals, RandomKey

__all__ = ["PixelAttack", "PixelOutcome", "run_baseline", "surrogates_of"]


@dataclass(frozen=True)
class PixelOutcome:
    """Images [batch,3,height,width] in steps of 1/255, before and after; the surrogates and the key
    of the attack.

    ``spent`` [batch] is the share of the budget that each image spends, None without one.
    """

    clean: Tensor
    attacked: Tensor
    surrogates: Surrogates
    key: RandomKey
    spent: Tensor | None
    effort: Effort


class PixelAttack:
    """Attack images pixel by pixel, within a radius of the image or within a budget.

    ``surrogates`` are names, as on the command line, or loaded objects. ``recipe`` is the name of a
    baseline, such as "mifgsm", the path of a recipe file, or a ``BaselineRecipe``. ``batch`` images
    are attacked together. An option of the recipe that cannot act is a warning.

    >>> attack = PixelAttack(["lab:resnet"], "mifgsm")                 # doctest: +SKIP
    >>> result = attack(images, labels)                                # doctest: +SKIP
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        surrogates: Sequence[str | Classifier],
        recipe: str | BaselineRecipe = "mifgsm",
        batch: int = 8,
        device: str = "cpu",
    ):
        loaded: Recipe | BaselineRecipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        if not isinstance(loaded, BaselineRecipe):
            raise RecipeError(f"recipe '{loaded.name}' attacks latents; use attnshift.LatentAttack")
        self.recipe = loaded
        self.baseline, self.budget = baseline_of(loaded), budget_of(loaded.budget)
        for line in idle_options("baseline", self.baseline):
            warnings.warn(line, stacklevel=3)
        check_batch(batch)
        self.classifiers = load_surrogates(surrogates, device)
        self.batch, self.device = batch, device

    @torch.inference_mode(False)
    def __call__(
        self,
        images: Tensor | numpy.ndarray,
        labels: Tensor | numpy.ndarray | Sequence[int],
        class_names: Sequence[str] = (),
        targets: Tensor | numpy.ndarray | Sequence[int] | None = None,
    ) -> AttackResult:
        """Attack ``images`` [batch,3,side,side] in [0,1] with true ``labels``, class numbers.

        Images may have any floating-point dtype and stand on any device; the result is fp32, on
        the attack's. Integers, one-hot labels and channels at the end are refused.
        ``class_names`` names the true class of each image. The names are part of an image's
        id, which its random draws depend on; where they are empty the first surrogate's own
        names are used. ``targets`` are the classes to be seen instead; without them any wrong one
        will do. Raises ``ImageError`` or ``LabelError`` for input that does not fit, and what the
        baseline cannot do.
        """
        tasks = checked_tasks(self.classifiers[0], images, labels, class_names, targets=targets, needs_names=False)
        first = Goals.of([tasks[0].label], [tasks[0].target], self.device)
        self.baseline.check(surrogates_of(self.classifiers, first), tasks[0].image[None].to(self.device))
        return in_batches(tasks, self.batch, self._attack)

    def _attack(self, tasks: Sequence[Task]) -> AttackResult:
        outcome = run_baseline(self.baseline, self.budget, self.recipe.seed, self.classifiers, tasks, self.device)
        attacked = quantise(outcome.attacked)
        surrogates = outcome.surrogates
        return AttackResult(attacked, surrogates.judge(attacked)[1], surrogates.known(outcome.clean))


def run_baseline(
    baseline: Baseline,
    budget: Budget | None,
    seed: int,
    classifiers: Sequence[Classifier],
    tasks: Sequence[Task],
    device: torch.device | str,
) -> PixelOutcome:
    """Attack ``tasks``, images of one size, with ``baseline``, within ``budget`` if there is one;
    random draws are named by ``seed`` and the images' ids."""
    images = quantise(torch.stack([task.image for task in tasks]).to(device))
    goals = Goals.of([task.label for task in tasks], [task.target for task in tasks], device)
    surrogates, effort = surrogates_of(classifiers, goals), Effort()
    counted, key = effort.of_surrogates(surrogates), RandomKey(seed, tuple(task.id for task in tasks), 0)
    if budget is None:
        attacked, spent = towards(images, baseline(counted, images, key)), None
    else:
        attacked = baseline.spend(counted, images, key, budget)
        spent = budget.spent(images, attacked)
    return PixelOutcome(images, attacked, surrogates, key, spent, effort)


def surrogates_of(classifiers: Sequence[Classifier], goals: Goals) -> Surrogates:
    """The surrogates of an attack on pixels; it lowers minus the cross-entropy, or that of the
    targets."""
    return Surrogates(
        classifiers, build(CLASSIFICATION, "cross_entropy", {}), goals, precision=classifiers[0].precision
    )
