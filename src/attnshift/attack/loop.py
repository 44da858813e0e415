"""The attack itself: a generator that yields one snapshot per iteration and knows nothing of files or progress bars."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.optimiser import AdamW
from attnshift.attack.problem import Problem
from attnshift.types import Branch, Fused, Observation

__all__ = ["Snapshot", "attack", "objective_gradient"]


@dataclass(frozen=True)
class Snapshot:
    """State of the images that are still attacked, before the update of ``iteration``; all tensors are detached.

    ``rows`` [active] are their places in the batch, ``latents`` and ``images`` belong together, ``losses`` are the
    weighted terms [active], ``margins`` and ``weights`` [models,active] as in ``Fused``.
    """

    iteration: int
    rows: Tensor
    latents: Tensor
    images: Tensor
    losses: dict[str, Tensor]
    margins: Tensor
    weights: Tensor
    optimiser: AdamW


def attack(problem: Problem) -> Generator[Snapshot, Tensor | None, None]:
    """Optimise the start latents of ``problem``; the last snapshot, after the last update, has no losses.

    A consumer may send back the positions of snapshot rows that are finished, a bool tensor [active]: those images
    leave the batch. Nothing that an image computes depends on the others.
    """
    recipe = problem.method.recipe.optimiser
    rows = torch.arange(len(problem.images))
    latents, weights = problem.trajectory.start, torch.empty(0)
    optimiser = AdamW.start(latents, recipe.learning_rate, recipe.weight_decay)
    for iteration in range(recipe.iterations):
        gradient, branch, losses, fused = objective_gradient(problem, latents, (iteration + 1) / recipe.iterations)
        weights = fused.weights
        finished = yield Snapshot(iteration, rows, latents, branch.images, losses, fused.margins, weights, optimiser)
        latents, optimiser = optimiser.step(latents, gradient)
        if finished is not None and bool(finished.any()):
            keep = (~finished).nonzero()[:, 0].cpu()
            if not len(keep):
                return
            problem, rows, latents, optimiser = problem.rows(keep), rows[keep], latents[keep], optimiser.rows(keep)
            weights = weights[:, keep]
    with torch.no_grad():
        images = problem.render(latents).images
    _, margins = problem.surrogates.judge(images)
    yield Snapshot(recipe.iterations, rows, latents, images, {}, margins, weights, optimiser)


def objective_gradient(
    problem: Problem, latents: Tensor, progress: float
) -> tuple[Tensor, Branch, dict[str, Tensor], Fused]:
    """Gradient of the whole objective at ``latents`` (detached), with what was seen on the way.

    The classifiers' gradients are taken and fused at the image; one backward pass then carries the fused direction
    and all other terms through decoder and denoiser.
    """
    method = problem.method
    latents = latents.detach().requires_grad_()
    with torch.enable_grad():
        branch = problem.render(latents, problem.sites)
        fused = method.rule(problem.surrogates, branch.images)
        weight = method.recipe.classification.weight * method.classification(progress)
        seen = Observation(problem.clean, branch, problem.tokens, problem.surrogates.labels, progress)
        terms = method.objective(seen)
        pull = weight * (branch.images * fused.direction.detach()).flatten(1).sum(1)
        (gradient,) = torch.autograd.grad(torch.stack([pull, *terms.values()]).sum(), latents)
    losses = {name: value.detach() for name, value in terms.items()}
    losses["classification"] = weight * (fused.weights * fused.losses).sum(0)
    return gradient, Branch(branch.latents.detach(), branch.images.detach(), {}), losses, fused
