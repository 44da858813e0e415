"""The attack itself: a generator that yields one snapshot per iteration and knows nothing of files
or progress bars."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.balance import CLASSIFIERS, Balance, Pulling, Pulls, held_at, readable_branch
from attnshift.attack.budget import Holding
from attnshift.attack.optimiser import Optimiser, start
from attnshift.attack.path import tangential
from attnshift.attack.pixels import PixelChange
from attnshift.attack.prepare import PreparedBatch
from attnshift.attack.rendering import Renderer
from attnshift.batching import batch_record, per_image, select_rows
from attnshift.ensemble.momentum import Momentum
from attnshift.losses.objective import TermStates
from attnshift.types import Fused

__all__ = ["AttackState", "Gradient", "Snapshot", "optimise_latents", "value_and_grad"]

_MEASURED = 1
"""The iteration in which the pulls of terms that steer are measured without balance, the first one
away from the clean image."""


@batch_record
class AttackState:
    """All that an iteration hands to the next beside the latents.

    These are the optimiser, the fused direction's momentum, the states of the fusion rule and of
    the terms, what the balance of the terms has measured, the multiplier of a budget, and what
    changes beside the latents: pixels, and the path's pull towards a boundary. An image that leaves
    the batch takes its part along.
    """

    optimiser: Optimiser = per_image()
    momentum: Momentum = per_image(default_factory=Momentum)
    fusion: Tensor | None = per_image(default=None)
    terms: TermStates = per_image(depth=1, default_factory=dict)
    balance: Balance | None = per_image(default=None)
    holding: Holding | None = per_image(default=None)
    pixels: PixelChange | None = per_image(default=None)
    pull: Tensor | None = per_image(default=None)
    """Share [batch] of the pull that the recipe asks for, in [0,1]; None where it asks for none."""

    @property
    def added(self) -> Tensor | None:
        """What is added to the image of the latents, [batch,3,height,width]; None for nothing."""
        return self.pixels and self.pixels.values

    @classmethod
    def start(cls, batch: PreparedBatch) -> AttackState:
        recipe = batch.method.recipe
        momentum = Momentum(recipe.classification.momentum, recipe.classification.clip)
        budget = batch.method.budget
        return cls(
            start(recipe.optimiser, batch.render.trajectory.start),
            momentum,
            balance=batch.method.edge and Balance.start(batch.method.edge, batch.method.objective.holding),
            holding=budget and Holding.start(budget, batch.images),
            pixels=PixelChange.start(recipe.pixels, recipe.optimiser, batch.images),
            pull=batch.images.new_zeros(len(batch.images)) if recipe.path.boundary else None,
        )


@dataclass(frozen=True)
class Gradient:
    """The objective's gradient at some latents, [batch,channels,rows,columns], and what came with
    it; all detached.

    ``images`` [batch,3,height,width] show the latents: at the end of the path, or as previews where
    no iterates are compared. ``losses`` are the weighted terms [batch] by name; ``state`` is that
    of the next iteration, except for the latents' optimiser.
    """

    gradient: Tensor
    images: Tensor
    losses: dict[str, Tensor]
    fused: Fused
    state: AttackState
    pulls: Pulls | None = None
    """None in an iteration in which they are not measured."""


@dataclass(frozen=True)
class Snapshot:
    """State of the images that are still attacked, before the update of ``iteration``; all tensors
    are detached.

    ``rows`` [active] are their places in the batch, ``latents`` and ``images`` belong together,
    ``losses`` are the weighted terms [active], ``margins`` and ``weights`` [models,active] as in
    ``Fused``.
    """

    iteration: int
    rows: Tensor
    latents: Tensor
    images: Tensor
    losses: dict[str, Tensor]
    margins: Tensor
    weights: Tensor
    state: AttackState
    pulls: Pulls | None = None
    """None where they are not measured."""


def optimise_latents(
    batch: PreparedBatch, stopped: Callable[[], bool] = lambda: False
) -> Generator[Snapshot, Tensor | None, None]:
    """Optimise the start latents of ``batch``; the last snapshot, after the last update, has no
    losses.

    The last update is that of the recipe, or the first one at which ``stopped`` says true.

    A consumer may send back the positions of snapshot rows that are finished, a bool tensor
    [active]: those images leave the batch. Nothing that an image computes depends on the others.
    """
    iteration = 0
    rows = torch.arange(len(batch.images))
    latents, weights, state = batch.render.trajectory.start, torch.empty(0), AttackState.start(batch)
    for iteration in range(batch.method.recipe.updates):
        now = value_and_grad(batch, latents, iteration, state)
        weights = now.fused.weights
        finished = yield Snapshot(
            iteration, rows, latents, now.images, now.losses, now.fused.margins, weights, state, now.pulls
        )
        latents, optimiser = state.optimiser.step(latents, now.gradient)
        state = replace(now.state, optimiser=optimiser)
        if finished is not None and bool(finished.any()):
            keep = (~finished).nonzero()[:, 0].cpu()
            if not len(keep):
                return
            batch, state = select_rows(batch, keep), select_rows(state, keep)
            rows, latents = rows[keep], latents[keep]
            weights = weights[:, keep]
        if stopped():
            break
    with torch.no_grad():
        images = batch.render.pushed(state.pull)(latents, added=state.added).images
    _, margins = batch.surrogates.judge(images)
    yield Snapshot(iteration + 1, rows, latents, images, {}, margins, weights, state)


def value_and_grad(batch: PreparedBatch, latents: Tensor, iteration: int, state: AttackState) -> Gradient:
    """Gradient of the whole objective at ``latents``.

    The classifiers' gradients are taken and fused at the image; one backward pass then carries the
    fused direction and all other terms through decoder and denoiser. Only ``space = "latent"``
    takes one pass for each classifier, and measured iterations (``attack/balance.py``) take one for
    each term.
    """
    method, balance, render = batch.method, state.balance, batch.render_at(iteration, state.pull)
    latents = latents.detach().requires_grad_()
    added = None if state.added is None else state.added.detach().requires_grad_()
    with torch.enable_grad():
        branch = render(latents, batch.observe.sites, added)
        points = latents if method.recipe.classification.space == "latent" else branch.seen
        fused = method.rule(batch.surrogates_at(iteration, render), points, state.fusion)
        direction, momentum = state.momentum.step(fused.direction.detach())
        holding, force = state.holding, None
        if holding:
            held = held_at(branch, points, latents)
            force, holding = holding.step(batch.images, branch.images, held, direction)
        read = branch if balance is None else readable_branch(branch)
        seen = batch.observe(read, iteration)
        weight = method.recipe.classification.weight * method.classification(seen.progress)
        values, term_states = method.objective(seen, state.terms)
        weights = {CLASSIFIERS: weight} | method.objective.weights(seen.progress)
        parts = Pulling(latents, branch, points, direction, force, values, weights, added)
        if balance is None:
            pulls = parts.measured(method.objective.holding) if iteration == _MEASURED else None
            gradient, *pushed = parts.summed()
        else:
            spent = holding.spent if holding else balance.edge.spent(batch.images, branch.images.detach())
            (gradient, *pushed), pulls, balance = balance.step(parts, read, spent, iteration)
    if method.recipe.path.tangent:
        assert branch.noise is not None
        gradient = tangential(gradient, branch.noise)
    losses = {CLASSIFIERS: weight * (fused.weights * fused.losses).sum(0)}
    losses |= {name: value.detach() for name, value in values.items()}
    pixels = state.pixels and state.pixels.step(*pushed)
    pull = None if state.pull is None else torch.full_like(state.pull, (iteration + 1) / batch.observe.iterations)
    after = AttackState(state.optimiser, momentum, fused.state, term_states, balance, holding, pixels, pull)
    images, margins = _at_the_end(batch, render, latents, added) or (branch.images.detach(), fused.margins)
    return Gradient(gradient, images, losses, replace(fused, margins=margins), after, pulls)


@torch.no_grad()
def _at_the_end(
    batch: PreparedBatch, render: Renderer, latents: Tensor, added: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """The images at the end of the path and their margins; None where ``render`` shows that end, or
    where no iterates are compared."""
    finish = batch.method.recipe.finish
    if render.whole or (finish.keep == "last" and not finish.early):
        return None
    images = render.looking(None, False)(latents, added=added).images
    return images, batch.surrogates.judge(images)[1]
