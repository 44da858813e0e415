"""The attack on latents as one call, for use from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from attnshift.attack.interface import AttackResult, checked_tasks, in_batches, load_surrogates
from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.fusion import FusionRule
from attnshift.errors import RecipeError
from attnshift.losses.objective import LossTerm, StatefulTerm
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe

__all__ = ["LatentAttack"]


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
        loaded: Recipe | BaselineRecipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        if not isinstance(loaded, Recipe):
            raise RecipeError(f"recipe '{loaded.name}' attacks pixels; use attnshift.PixelAttack")
        self.backbone: Backbone = load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        self.backbone.to(device)
        self.classifiers = load_surrogates(surrogates, device)
        self.method = Method.of(loaded, terms, rule)
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

        ``class_names`` names the true class of each image; where it is empty the first surrogate's
        own names are used. ``masks`` [batch,1,side,side] in [0,1] say where the objects are, for
        recipes whose mask is given. ``targets`` are the classes to be seen instead; without them
        any wrong one will do. Raises ``ModelError``, ``ImageError``, ``LabelError`` or
        ``RecipeError`` for input that does not fit.
        """
        self.backbone.check_size(images.shape[-1])
        if masks is not None and self.method.recipe.mask.source != "given":
            raise RecipeError(
                "masks are ignored unless the recipe's mask.source is 'given'; leave masks out, or set it"
            )
        tasks = checked_tasks(self.classifiers[0], images, labels, class_names, masks, targets)
        return in_batches(tasks, self.batch, self._attack)

    def _attack(self, tasks: Sequence[Task]) -> AttackResult:
        batch = prepare_batch(self.method, self.backbone, self.classifiers, tasks)
        outcome = run_attack(batch)
        return AttackResult(outcome.images, batch.surrogates.judge(outcome.images)[1], outcome.iterations)
