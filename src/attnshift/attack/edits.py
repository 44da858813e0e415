"""A baseline through a diffusion model, on a batch and within a budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.effort import Effort
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.edits import EditInput
from attnshift.batching import select_rows
from attnshift.data.images import quantise
from attnshift.metrics.budget import Budget, furthest_kept

__all__ = ["Edited", "edit"]


@dataclass(frozen=True)
class Edited:
    """Images [batch,3,height,width] in steps of 1/255: attacked, and by the same way with strength
    0, the control arm. ``clean`` are those that the attack is measured against: the images as they
    were given, or of an attack that generates the control arm itself."""

    attacked: Tensor
    floor: Tensor
    clean: Tensor


def edit(baseline: DiffusionBaseline, given: EditInput, budget: Budget | None, effort: Effort) -> Edited:
    """Attack the images of ``given``, within ``budget`` if there is one; ``effort`` counts the work
    after the preparation.

    Within a budget the attack runs again at each strength of a search, image by image. Where even
    the control arm breaks the limit, a milder attack is tried. An image for which none keeps it
    comes back unchanged, beside the control arm of the mildest.
    """
    prepared = baseline.prepare(given)
    given.backbone.release_texts()
    floor, attack = quantise(prepared.floor()), effort.of_edit(prepared)
    clean = floor if baseline.generates else given.images
    if budget is None:
        return Edited(quantise(attack(clean.new_ones(len(clean)))), floor, clean)
    attacked, kept = clean.clone(), budget.keeps(clean, floor)
    rows, others = kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]
    if len(rows):
        show = lambda strengths, chosen: quantise(select_rows(attack, rows[chosen])(strengths))  # noqa: E731
        attacked[rows] = furthest_kept(budget, clean[rows], floor[rows], show)[1]
    milder = baseline.milder
    if milder is not None and len(others):
        found = edit(milder, select_rows(given, others), budget, effort)
        attacked[others], floor[others] = found.attacked, found.floor
    return Edited(attacked, floor, clean)


@torch.no_grad()
def round_trip(given: EditInput) -> Tensor:
    """The images of ``given`` through the autoencoder and back, in steps of 1/255."""
    return quantise(given.backbone.decode(given.backbone.encode(given.images)).clamp(0, 1))
