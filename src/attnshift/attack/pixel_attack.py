"""Baselines as one call, for use from Python, on the same terms as the latent attack."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor

from attnshift.attack.budget import budget_of
from attnshift.attack.edits import edit, round_trip
from attnshift.attack.effort import Effort
from attnshift.attack.interface import AttackResult, check_batch, checked_tasks, in_batches, load_surrogates
from attnshift.attack.prepare import Task
from attnshift.attack.remarks import idle_options
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.edits import EditInput
from attnshift.baselines.kinds import Baseline
from attnshift.baselines.rounding import towards
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.defences.names import parts_of
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.losses import CLASSIFICATION
from attnshift.metrics.budget import Budget
from attnshift.recipes.reading import baseline_of, load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.registry import build
from attnshift.types import Goals, RandomKey

__all__ = ["PixelAttack", "PixelOutcome", "check_runnable", "run_baseline"]


@dataclass(frozen=True)
class PixelOutcome:
    """Images [batch,3,height,width] in steps of 1/255, before and after; the surrogates and the key
    of the attack.

    Before it stands the twin, where an attack generates images. ``spent`` [batch] is the share of
    the budget that each image spends, None without one. ``controls`` are the control arms of an
    attack through a diffusion model, by name.
    """

    clean: Tensor
    attacked: Tensor
    surrogates: Surrogates
    key: RandomKey
    spent: Tensor | None
    effort: Effort
    controls: Mapping[str, Tensor] = field(default_factory=dict)


class PixelAttack:
    """Attack images by a baseline, within a radius of its own or within a budget.

    ``surrogates`` are names, as on the command line, or loaded objects. ``recipe`` is the name of a
    baseline, such as "mifgsm", the path of a recipe file, or a ``BaselineRecipe``. ``batch`` images
    are attacked together. An option of the recipe that cannot act is a warning. A baseline through
    a diffusion model, such as "diffpgd", also needs a ``pipeline``, a name or a loaded object; so
    does a surrogate behind purification.

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
        pipeline: str | Backbone | None = None,
    ):
        loaded: Recipe | BaselineRecipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        if not isinstance(loaded, BaselineRecipe):
            raise RecipeError(f"recipe '{loaded.name}' attacks latents; use attnshift.LatentAttack")
        self.recipe = loaded
        self.baseline, self.budget = baseline_of(loaded), budget_of(loaded.budget)
        for line in idle_options("baseline", self.baseline):
            warnings.warn(line, stacklevel=3)
        check_batch(batch)
        self.backbone = _pipeline_of(loaded, self.baseline, surrogates, pipeline, device)
        backbone = self.backbone
        self.classifiers = load_surrogates(surrogates, device, None if backbone is None else lambda: backbone)
        self.batch, self.device = batch, device

    @torch.inference_mode(False)
    def __call__(
        self,
        images: Tensor | numpy.ndarray,
        labels: Tensor | numpy.ndarray | Sequence[int],
        class_names: Sequence[str] = (),
        targets: Tensor | numpy.ndarray | Sequence[int] | None = None,
    ) -> AttackResult:
        """Attack ``images`` [batch,3,height,width] in [0,1] with true ``labels``, class numbers.

        Images may have any floating-point dtype and stand on any device; the result is fp32, on
        the attack's. Integers, one-hot labels and channels at the end are refused.
        ``class_names`` names the true class of each image. The names are part of an image's
        id, which its random draws depend on; where they are empty the first surrogate's own
        names are used. ``targets`` are the classes to be seen instead; without them any wrong one
        will do. Raises ``ImageError`` or ``LabelError`` for input that does not fit, and what the
        baseline cannot do.
        """
        tasks = checked_tasks(
            self.classifiers[0], images, labels, class_names, targets=targets, needs_names=self._needs_names
        )
        check_runnable(self.baseline, self.classifiers, tasks, self.backbone, self.device)
        return in_batches(tasks, self.batch, self._attack)

    @property
    def _needs_names(self) -> bool:
        return isinstance(self.baseline, DiffusionBaseline) and bool(self.baseline.prompt("mug"))

    def _attack(self, tasks: Sequence[Task]) -> AttackResult:
        outcome = run_baseline(
            self.baseline, self.budget, self.recipe.seed, self.classifiers, tasks, self.device, self.backbone
        )
        attacked = quantise(outcome.attacked)
        surrogates = outcome.surrogates
        margins, known = surrogates.judge(attacked)[1], surrogates.known(outcome.clean)
        names = tuple(each.name for each in self.classifiers)
        return AttackResult(attacked, margins, known, clean=outcome.clean, surrogates=names)


def _pipeline_of(
    recipe: BaselineRecipe,
    baseline: Baseline | DiffusionBaseline,
    surrogates: Sequence[str | Classifier],
    pipeline: str | Backbone | None,
    device: str,
) -> Backbone | None:
    """The pipeline of an attack through a diffusion model, or of one that knows a purification; a
    ``RecipeError`` where ``recipe`` needs one and has none, or the other way round."""
    if not isinstance(baseline, DiffusionBaseline):
        defended = any(isinstance(each, str) and "purification" in parts_of(each) for each in surrogates)
        if pipeline is None:
            return None
        if not defended:
            raise RecipeError(f"recipe '{recipe.name}' attacks pixels and uses no pipeline; leave `pipeline` out")
    elif pipeline is None:
        raise RecipeError(f"recipe '{recipe.name}' edits through a diffusion model; give `pipeline`, such as 'lab'")
    return (load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline).to(device)


def check_runnable(
    baseline: Baseline | DiffusionBaseline,
    classifiers: Sequence[Classifier],
    tasks: Sequence[Task],
    backbone: Backbone | None,
    device: torch.device | str,
) -> None:
    """Raise ``UserError`` if ``baseline`` cannot run on ``tasks``, images of one size.

    It is tried on the first of them; the prompts of all are looked at.
    """
    images, surrogates, key = _given(0, classifiers, tasks[:1], device)
    if not isinstance(baseline, DiffusionBaseline):
        return baseline.check(surrogates, images)
    given = _edit_input(baseline, backbone, surrogates, images, tasks[:1], key)
    baseline.check(given)
    for task in {(task.class_name, task.caption): task for task in tasks}.values():
        if prompt := _prompt(baseline, task):
            given.backbone.locate(prompt, task.caption.phrases[0][1] if task.caption else task.class_name)


def run_baseline(
    baseline: Baseline | DiffusionBaseline,
    budget: Budget | None,
    seed: int,
    classifiers: Sequence[Classifier],
    tasks: Sequence[Task],
    device: torch.device | str,
    backbone: Backbone | None = None,
) -> PixelOutcome:
    """Attack ``tasks``, images of one size, with ``baseline``, within ``budget`` if there is one;
    random draws are named by ``seed`` and the images' ids. Only a baseline through a diffusion
    model asks the ``backbone``."""
    images, surrogates, key = _given(seed, classifiers, tasks, device)
    effort, controls = Effort(), {}
    if isinstance(baseline, DiffusionBaseline):
        given = _edit_input(baseline, backbone, surrogates, images, tasks, key)
        edited = edit(baseline, given, budget, effort)
        images, attacked = edited.clean, edited.attacked
        if not baseline.generates:
            controls = {"round_trip": round_trip(given), "reconstruction": edited.floor}
    else:
        attacked = _on_pixels(baseline, effort.of_surrogates(surrogates), images, key, budget)
    spent = None if budget is None else budget.spent(images, attacked)
    return PixelOutcome(images, attacked, surrogates, key, spent, effort, controls)


def _given(
    seed: int, classifiers: Sequence[Classifier], tasks: Sequence[Task], device: torch.device | str
) -> tuple[Tensor, Surrogates, RandomKey]:
    """The images of ``tasks``, their surrogates with goals, and the key of their random draws."""
    images = quantise(torch.stack([task.image for task in tasks]).to(device))
    goals = Goals.of([task.label for task in tasks], [task.target for task in tasks], device)
    key = RandomKey(seed, tuple(task.id for task in tasks), 0)
    return images, _surrogates(classifiers, goals, key), key


def _prompt(baseline: DiffusionBaseline, task: Task) -> str:
    """The image's caption, or the baseline's own prompt; empty where it reads none."""
    own = baseline.prompt(task.class_name)
    return task.caption.text if own and task.caption else own


def _edit_input(
    baseline: DiffusionBaseline,
    backbone: Backbone | None,
    surrogates: Surrogates,
    images: Tensor,
    tasks: Sequence[Task],
    key: RandomKey,
) -> EditInput:
    assert backbone is not None
    return EditInput(backbone, surrogates, images, tuple(_prompt(baseline, task) for task in tasks), key)


def _on_pixels(
    baseline: Baseline, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget | None
) -> Tensor:
    if budget is None:
        return towards(images, baseline(surrogates, images, key))
    return baseline.spend(surrogates, images, key, budget)


def _surrogates(classifiers: Sequence[Classifier], goals: Goals, key: RandomKey) -> Surrogates:
    """The surrogates of an attack on pixels; it lowers minus the cross-entropy, or that of the
    targets."""
    criterion, precision = build(CLASSIFICATION, "cross_entropy", {}), classifiers[0].precision
    return Surrogates(classifiers, criterion, goals, precision=precision, key=key)
