"""Trials carried out: what all share is loaded once, then each recipe attacks and is graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.attack.prepare import Task, prepare_batch
from attnshift.attack.run import run_attack
from attnshift.classifiers.classifier import Classifier, in_order_of, vocabulary
from attnshift.defences.names import load_defended
from attnshift.errors import ModelError, RecipeError, UserError
from attnshift.execution.prepare import PreparedRun, prepare_run
from attnshift.execution.worker import read_task
from attnshift.losses.classification import margins
from attnshift.metrics.metrics import ssim
from attnshift.studies.tuning.grading import Grade, grade
from attnshift.studies.tuning.settings import TuningSettings, attack_settings, check_values, recipe_with
from attnshift.types import Goals

__all__ = ["Bench", "attempt", "set_up"]

_CHUNK = 32
"""Images that are judged at once."""


@dataclass(frozen=True)
class Bench:
    """All that the trials share, loaded once. ``batches`` are the micro-batches of ``clean``
    [batch,3,side,side] and the ``goals`` of the attack on them; ``right`` [models,batch]: which of
    them each tuning classifier knows."""

    attack: PreparedRun
    """The attack with the recipe to start from."""
    tuning: list[Classifier]
    batches: list[list[Task]]
    clean: Tensor
    goals: Goals
    right: Tensor


def set_up(settings: TuningSettings) -> Bench:
    """Load everything, and check whatever could stop a trial later."""
    attack = prepare_run(attack_settings(settings))
    worker, items = attack.worker, list(attack.plan)
    loaded = [load_defended(name, lambda: worker.backbone).to(settings.device) for name in settings.tuning]
    tuning = [in_order_of(vocabulary(worker.classifiers), each) for each in loaded]
    size, classes = worker.spec.common_size, worker.classifiers[0].classes
    if size is None:
        raise UserError("`size` is keep; a tuning takes images of one size, so give it in pixels")
    for own, classifier in zip(loaded, tuning, strict=True):
        if classifier.classes != classes:
            counts = f"{own.name} has {own.classes} classes, the surrogates have {classes}"
            other = f", and {classifier.classes - classes} of its names are not among theirs"
            raise ModelError(counts + (other if classifier.order else ""))
    check_values(settings, lambda tried: attack.with_recipe(tried).check())
    parts = [[read_task(item, size) for item in part.items] for part in attack.plan.batches(worker.spec.batch)]
    clean = torch.stack([task.image for part in parts for task in part])
    goals = Goals.of([item.label for item in items], [item.target for item in items])
    right = _logits(tuning, clean, settings.device).argmax(2) == goals.labels
    for classifier, known in zip(tuning, right, strict=True):
        if not bool(known.any()):
            raise ModelError(f"{classifier.name} sees none of the clean images as its class and cannot decide")
    return Bench(attack, tuning, parts, clean, goals, right)


def attempt(settings: TuningSettings, bench: Bench, values: Mapping[str, Any]) -> Grade | str:
    """The grade of the recipe with ``values`` put in, or why it has none."""
    try:
        recipe = recipe_with(settings, values)
        bench.attack.with_recipe(recipe).check()
        images = _attack(bench, Method.of(recipe))
    except (RecipeError, ModelError) as error:
        return str(error)
    logits = _logits(bench.tuning, images, settings.device)
    margin = torch.stack([margins(each, bench.goals) for each in logits])
    pairs = zip(bench.clean.split(_CHUNK), images.split(_CHUNK), strict=True)
    similarity = torch.cat([ssim(*pair) for pair in pairs])
    if not all(bool(each.isfinite().all()) for each in (images, margin, similarity)):
        return "the attack gave images, or a tuning classifier logits, that are not finite"
    return grade(bench.right, bench.goals.achieved(logits.argmax(2)), margin, similarity, settings.floor)


def _attack(bench: Bench, method: Method) -> Tensor:
    """All images attacked, [batch,3,side,side], in the micro-batches
    and with the draws of ``attnshift attack``."""
    backbone, surrogates = bench.attack.worker.backbone, bench.attack.worker.classifiers
    outcomes = (run_attack(prepare_batch(method, backbone, surrogates, part)) for part in bench.batches)
    return torch.cat([outcome.images.cpu() for outcome in outcomes])


@torch.no_grad()
def _logits(classifiers: Sequence[Classifier], images: Tensor, device: str) -> Tensor:
    """Logits of each classifier on ``images``, [models,batch,classes] on the CPU."""
    return torch.stack(
        [torch.cat([classifier(part.to(device)).cpu() for part in images.split(_CHUNK)]) for classifier in classifiers]
    )
