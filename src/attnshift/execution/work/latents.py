"""Runs of the attack in the latent space of a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attnshift.attack.clean_path import Inversions, compute_uncached
from attnshift.attack.interference import Subject, check_choice, class_of, locate_class
from attnshift.attack.masks import mask_sites
from attnshift.attack.method import Method, check_guidance
from attnshift.attack.movement import Moved
from attnshift.attack.path import check_sites
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.remarks import idle_settings, idle_through, idle_with
from attnshift.attack.run import Outcome, Watch, run_attack
from attnshift.classifiers.classifier import Classifier, vocabulary
from attnshift.classifiers.gradcam import grad_cam
from attnshift.data.datasets import Item
from attnshift.diffusion.backbone import Backbone, check_steps
from attnshift.ensemble.fusion import effective_models
from attnshift.errors import RecipeError
from attnshift.execution.work import BatchResult, caption_of, effort_columns
from attnshift.recipes.schema import Recipe
from attnshift.sizes import Size
from attnshift.types import Goals, RandomKey

__all__ = ["LatentWork"]


@dataclass(frozen=True)
class LatentWork:
    method: Method

    @classmethod
    def of(cls, recipe: Recipe, places: Mapping[str, str] = {}) -> LatentWork:
        return cls(Method.of(recipe, places=places))

    @property
    def weights(self) -> Mapping[str, str]:
        stand_in = self.method.stand_in
        return {} if stand_in is None else {"decoder": stand_in.fingerprint()}

    def remarks(self, backbone: Backbone | None, classifiers: Sequence[Classifier]) -> tuple[str, ...]:
        lines = (*idle_settings(self.method), *idle_through(self.method, classifiers))
        return lines if backbone is None else (*lines, *idle_with(self.method, backbone))

    @torch.no_grad()
    def check(self, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: Size) -> None:
        method, recipe = self.method, self.method.recipe
        backbone.check_size(size)
        check_guidance(recipe, backbone.name, backbone.guided)
        if method.stand_in is not None:
            method.stand_in.check(backbone, size)
        check_sites(recipe, method.objective.sites(backbone.sites(size), backbone.latent_size(size)))
        steps = recipe.diffusion.schedule_steps, recipe.diffusion.denoising_steps
        check_steps(backbone, *steps, size, "diffusion.schedule_steps and denoising_steps")
        mask_sites(recipe.mask, backbone.sites(size), backbone.latent_size(size))
        for name, caption in sorted({(item.class_name, item.caption) for item in items}):
            if caption and recipe.prompt.names_both:
                raise RecipeError("prompt.template names {interference}, and captions do not; leave `captions` out")
            locate_class(backbone, recipe.prompt.prompt(name, "", caption_of(caption, name)), recipe.prompt.stream)
        probe = torch.full((1, 3, *size), 0.5, device=backbone.device)
        if recipe.mask.source == "gradcam":
            for classifier in classifiers:
                grad_cam(classifier, probe, torch.zeros(1, dtype=torch.long, device=backbone.device))
        self._check_fusion(classifiers, items[0], probe)
        if method.reads_interference:
            subjects = [
                Subject(item.id, item.label, item.class_name, item.target, caption_of(item.caption, item.class_name))
                for item in items
            ]
            check_choice(recipe, backbone, vocabulary(classifiers), subjects)

    def carry_out(
        self,
        backbone: Backbone,
        classifiers: Sequence[Classifier],
        tasks: Sequence[Task],
        watch: Watch | None = None,
        inversions: Inversions = compute_uncached,
    ) -> BatchResult:
        batch = prepare_batch(self.method, backbone, classifiers, tasks, inversions)
        outcome = run_attack(batch, watch)
        arms = {
            "clean": batch.images,
            "round_trip": batch.round_trip,
            "reconstruction": batch.observe.clean.images,
            "noise": outcome.noise,
            "attack": outcome.images,
        }
        phrases = batch.observe.interference.phrases if batch.observe.interference else [""] * len(tasks)
        names = [classifier.name for classifier in classifiers]
        effort = effort_columns(outcome.effort, len(tasks))
        rows = [_row(outcome, place, names) | effort | {"interference": phrase} for place, phrase in enumerate(phrases)]
        return BatchResult.judged(batch.surrogates, arms, rows, outcome.stopped_after)

    def _check_fusion(self, classifiers: Sequence[Classifier], item: Item, probe: Tensor) -> None:
        """Let criterion, views and fusion rule say at once what they cannot work with;
        items have targets, or none."""
        method = self.method
        goals = Goals.of([item.label], [item.target], probe.device)
        if method.reads_interference:
            given = method.recipe.interference.choose == "given"
            label = class_of(method.recipe.interference.phrase, vocabulary(classifiers)) if given else 0
            goals = replace(goals, interference=torch.full_like(goals.labels, label))
        key = RandomKey(method.recipe.seed, (item.id,), 0)
        surrogates = method.surrogates(classifiers, goals, probe, key)
        method.rule(replace(surrogates, views=method.expectation.views(key)), probe)


def _row(outcome: Outcome, place: int, surrogates: Sequence[str]) -> dict[str, Any]:
    history, measured = outcome.history[place], outcome.measured[place]
    path, file = outcome.on_path[place], outcome.on_file[place]
    before, after = path.maps
    return {
        "spent": None if outcome.spent is None else float(outcome.spent[place]),
        "pixel_share": None if outcome.pixel_share is None else float(outcome.pixel_share[place]),
        "iteration": int(outcome.iterations[place]),
        "evaluated": int(outcome.evaluated[place]),
        "losses": _series(history),
        "margin_curves": _by_surrogate(surrogates, outcome.margins[place]),
        "measured": tuple(each.iteration for each in measured),
        "gradients": _series([each.norms for each in measured]),
        "pulls": _series([each.pulls for each in measured]),
        "idle_terms": outcome.idle_terms[place],
        "shares": _by_surrogate(surrogates, outcome.weights[place]),
        "effective_models": effective_models(outcome.weights[place]),
        "attention_clean": tuple(before.flatten().tolist()),
        "attention_attack": tuple(after.flatten().tolist()),
        "attention_side": len(before),
        "class_on_path": _moved(path.true),
        "class_on_file": _moved(file.true),
        "interference_on_path": _moved(path.interference),
        "interference_on_file": _moved(file.interference),
    }


def _series(values: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """Name -> its values, 0 where a term was switched off."""
    names = dict.fromkeys(name for each in values for name in each)
    return {name: tuple(each.get(name, 0.0) for each in values) for name in names}


def _by_surrogate(surrogates: Sequence[str], values: Sequence[tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Surrogate -> its value in every iteration; ``values`` are [iterations][surrogates]."""
    return dict(zip(surrogates, zip(*values, strict=True), strict=True))


def _moved(layers: Mapping[str, Moved]) -> dict[str, tuple[float, float, float]]:
    return {name: (each.before, each.after, each.distance) for name, each in layers.items()}
