"""The attack on latents as one call, for use from Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import count

import numpy
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from attnshift.attack.interface import (
    AttackHistory,
    AttackResult,
    Follower,
    check_batch,
    checked_tasks,
    in_batches,
    load_surrogates,
)
from attnshift.attack.loop import Snapshot
from attnshift.attack.method import Method, check_guidance
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.remarks import idle_settings, idle_through
from attnshift.attack.run import run_attack
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.fusion import FusionRule
from attnshift.errors import RecipeError
from attnshift.losses.objective import LossTerm, StatefulTerm
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.sizes import size_of

__all__ = ["LatentAttack"]


class LatentAttack:
    """Attack images in the latent space of a diffusion model.

    ``pipeline`` and ``surrogates`` are names, as on the command line, or loaded objects; ``recipe``
    is a preset's name, the path of a recipe file, or a ``Recipe``. ``batch`` images are attacked
    together.

    ``terms`` are loss terms of your own by name, and ``rule`` is a fusion rule in place of the
    recipe's. A section of the recipe with a term's name sets its weight and schedule; without one
    its weight is 1. A setting of the recipe that cannot act is a warning.

    ``progress`` shows a bar on standard error; without a value it does so on a terminal, and in a
    notebook where ipywidgets is installed. ``telemetry`` is told of every iteration, such as a
    ``attnshift.telemetry.Telemetry``; it may end an attack.

    >>> attack = LatentAttack("lab", ["lab:resnet"], "fast")           # doctest: +SKIP
    >>> result = attack(images, labels, ["mug", "tree"])               # doctest: +SKIP
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        pipeline: str | Backbone,
        surrogates: Sequence[str | Classifier],
        recipe: str | Recipe = "fast",
        batch: int = 8,
        device: str = "cpu",
        terms: Mapping[str, LossTerm | StatefulTerm] | None = None,
        rule: FusionRule | None = None,
        progress: bool | None = None,
        telemetry: Follower | None = None,
    ):
        loaded: Recipe | BaselineRecipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        if not isinstance(loaded, Recipe):
            raise RecipeError(f"recipe '{loaded.name}' attacks pixels; use attnshift.PixelAttack")
        check_batch(batch)
        loaded_pipeline = cache(lambda: (load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline).to(device))
        self.classifiers = load_surrogates(surrogates, device, loaded_pipeline)
        self.backbone: Backbone = loaded_pipeline()
        self.method = Method.of(loaded, terms, rule)
        check_guidance(loaded, self.backbone.name, self.backbone.guided)
        for line in (*idle_settings(self.method), *idle_through(self.method, self.classifiers)):
            warnings.warn(line, stacklevel=3)
        self.batch = batch
        self.progress, self.telemetry = progress, telemetry

    @torch.inference_mode(False)
    def __call__(
        self,
        images: Tensor | numpy.ndarray,
        labels: Tensor | numpy.ndarray | Sequence[int],
        class_names: Sequence[str] = (),
        masks: Tensor | numpy.ndarray | None = None,
        targets: Tensor | numpy.ndarray | Sequence[int] | None = None,
    ) -> AttackResult:
        """Attack ``images`` [batch,3,height,width] in [0,1] with true ``labels``, class numbers.

        Images may have any floating-point dtype and stand on any device; the result is fp32, on
        the attack's. Integers, one-hot labels and channels at the end are refused.
        ``class_names`` names the true class of each image; where it is empty the first surrogate's
        own names are used. ``masks`` [batch,1,height,width] in [0,1] say where the objects are, for
        recipes whose mask is given. ``targets`` are the classes to be seen instead; without them
        any wrong one will do. Raises ``ModelError``, ``ImageError``, ``LabelError`` or
        ``RecipeError`` for input that does not fit.
        """
        if masks is not None and self.method.recipe.mask.source != "given":
            raise RecipeError(
                "masks are ignored unless the recipe's mask.source is 'given'; leave masks out, or set it"
            )
        tasks = checked_tasks(self.classifiers[0], images, labels, class_names, masks, targets)
        self.backbone.check_size(size_of(tasks[0].image))
        numbers, updates = count(), self.method.recipe.updates
        with _bar(self.progress, -(-len(tasks) // self.batch) * updates) as show:
            return in_batches(tasks, self.batch, lambda part: self._attack(part, next(numbers), show))

    def _attack(self, tasks: Sequence[Task], number: int, show: Callable[[int], None]) -> AttackResult:
        names, ids = tuple(each.name for each in self.classifiers), [task.id for task in tasks]
        follow = None if self.telemetry is None else self.telemetry.watch(number, names)

        def watch(snapshot: Snapshot) -> bool:
            show(number * self.method.recipe.updates + snapshot.iteration)
            return bool(follow and follow(ids, snapshot))

        batch = prepare_batch(self.method, self.backbone, self.classifiers, tasks)
        outcome = run_attack(batch, watch)
        surrogates, clean = batch.surrogates, quantise(batch.images)
        margins, known = surrogates.judge(outcome.images)[1], surrogates.known(clean)
        maps, kept = (movement.maps for movement in outcome.on_file), outcome.iterations.tolist()
        history = tuple(map(AttackHistory, outcome.history, outcome.margins, maps, kept))
        return AttackResult(outcome.images, margins, known, outcome.iterations, clean, names, history)


@contextmanager
def _bar(wanted: bool | None, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` updates, and the function that moves it; None for ``wanted`` shows it on a
    terminal, and in a notebook that has the widgets for it."""
    console = Console(stderr=True, force_terminal=wanted or None)
    fits = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    if not (fits if wanted is None else wanted):
        yield lambda done: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("attack", total=total)
        yield lambda done: bar.update(task, completed=done)
