"""The consumer of the attack's loop: it keeps the best iterate of each image and says when an image
is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.balance import idle_terms
from attnshift.attack.effort import Effort
from attnshift.attack.loop import AttackState, Snapshot, optimise_latents
from attnshift.attack.movement import Movement, attention_on_file, attention_on_path
from attnshift.attack.pixels import pixel_share
from attnshift.attack.prepare import PreparedBatch
from attnshift.attack.timing import timed_batch
from attnshift.batching import select_rows, spread
from attnshift.data.images import quantise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.metrics.budget import Budget, furthest_kept
from attnshift.profiling import part
from attnshift.randomness import random_step

__all__ = ["MeasuredPulls", "Outcome", "Watch", "run_attack"]

Watch = Callable[[Snapshot], bool | None]
"""Function called with every snapshot; true asks for the end of the attack after this iteration."""


@dataclass(frozen=True)
class MeasuredPulls:
    """Pulls of an image's terms in ``iteration``, by name: the norm of each gradient at the latents
    before weight and balance, and that of its part of the update."""

    iteration: int
    norms: dict[str, float]
    pulls: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """Result of a batch. ``images`` [batch,3,height,width] are multiples of 1/255: what is saved is
    what was judged.

    ``noise`` [batch,3,height,width] is a control: the start latents moved as far as the attack
    moved them (L2 norm), but in a random direction. ``iterations`` [batch] is the iterate that was
    kept, ``evaluated`` [batch] the number of compared iterates; ``history`` holds for each image
    the weighted losses of every iteration, ``margins`` those of each surrogate in it, in logits,
    and ``weights`` the share of each surrogate in its direction. ``on_path`` and ``on_file`` say
    for each image how far attention has moved on the attack's own path, and on the saved file.
    ``spent`` [batch] is the share of the budget that each image spends, None without one, and
    ``pixel_share`` [batch] that of added pixels in its change, None where only latents move.
    ``measured`` holds for each image the pulls of its terms in the iterations in which they were
    measured, and ``idle_terms`` one line for each term that never acted on it. ``effort`` is that
    of the whole batch. ``stopped_after`` is the number of updates after which the watcher ended the
    attack before its last one, else 0.
    """

    images: Tensor
    noise: Tensor
    iterations: Tensor
    evaluated: Tensor
    history: tuple[tuple[dict[str, float], ...], ...]
    margins: tuple[tuple[tuple[float, ...], ...], ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    on_path: tuple[Movement, ...]
    on_file: tuple[Movement, ...]
    spent: Tensor | None
    pixel_share: Tensor | None
    measured: tuple[tuple[MeasuredPulls, ...], ...]
    idle_terms: tuple[tuple[str, ...], ...]
    effort: Effort
    stopped_after: int = 0


@part("bookkeeping")
def run_attack(batch: PreparedBatch, watch: Watch | None = None) -> Outcome:
    """Attack ``batch`` and keep of each image the iterate that the recipe asks for.

    ``watch`` is called with every snapshot, after the iterates have been compared. Where it ends
    the attack, the result is that of the recipe with ``finish.after``.
    """
    policy, budget = batch.method.recipe.finish, batch.method.budget
    effort = Effort()
    best, timed = _Best.start(batch), timed_batch(effort.of_batch(batch))
    stopped, after = False, 0
    loop, finished = optimise_latents(timed, lambda: stopped), None
    while True:
        try:
            snapshot = loop.send(finished)
        except StopIteration:
            break
        active = select_rows(timed, snapshot.rows)
        if budget:
            best.select_best(snapshot, *_rank_within(budget, active, snapshot.images, policy.keep == "best"))
            if not snapshot.losses:
                best.spend_rest(budget, active, snapshot)
        else:
            rank, fooled, rounded = _rank(active.surrogates, active.images, snapshot, policy.confidence)
            best.select_best(snapshot, rounded, rank if policy.keep == "best" else None)
            finished = fooled if policy.early else None
        stopped = bool(watch and watch(snapshot)) or stopped
        after = _stopped_after(batch, snapshot) if stopped else 0
    return replace(best.outcome(batch, effort), stopped_after=after)


def _stopped_after(batch: PreparedBatch, last: Snapshot) -> int:
    """Updates before the ``last`` snapshot of an attack that was told to stop; 0 where it has come
    to its own end."""
    stopped = not last.losses and last.iteration < batch.method.recipe.updates
    return last.iteration if stopped else 0


@dataclass
class _Best:
    """The best iterate of each image so far, and the losses, margins and shares of its
    iterations."""

    images: Tensor
    latents: Tensor
    added: Tensor | None
    pull: Tensor | None
    rank: Tensor
    iterations: Tensor
    evaluated: Tensor
    history: list[list[dict[str, float]]]
    margins: list[list[tuple[float, ...]]]
    weights: list[list[tuple[float, ...]]]
    measured: list[list[MeasuredPulls]]

    @classmethod
    def start(cls, batch: PreparedBatch) -> _Best:
        """The clean branch, which every iterate is better than."""
        count, images = len(batch.images), batch.observe.clean.images.clone()
        return cls(
            images=images,
            latents=batch.render.trajectory.start.clone(),
            added=torch.zeros_like(images) if batch.method.recipe.pixels.learning_rate else None,
            pull=images.new_zeros(count) if batch.method.recipe.path.boundary else None,
            rank=torch.full((count, 2), torch.inf, dtype=images.dtype, device=images.device),
            iterations=torch.zeros(count, dtype=torch.long),
            evaluated=torch.zeros(count, dtype=torch.long),
            history=[[] for _ in range(count)],
            margins=[[] for _ in range(count)],
            weights=[[] for _ in range(count)],
            measured=[[] for _ in range(count)],
        )

    def select_best(self, snapshot: Snapshot, rounded: Tensor, rank: Tensor | None) -> None:
        """Keep the iterates [active] whose ``rank`` [active,2] is lower than that of the kept ones;
        without one all.

        ``rounded`` [active,3,height,width] are their images in 8 bits.
        """
        rows = snapshot.rows
        if rank is None:
            rank, better = self.rank[rows], torch.ones(len(rows), dtype=torch.bool, device=rounded.device)
        else:
            better = _less(rank, self.rank[rows])
        chosen = rows[better.cpu()]
        self.images[chosen], self.latents[chosen] = rounded[better], snapshot.latents[better]
        if self.added is not None and snapshot.state.added is not None:
            self.added[chosen] = snapshot.state.added[better]
        if self.pull is not None and snapshot.state.pull is not None:
            self.pull[chosen] = snapshot.state.pull[better]
        self.rank[chosen], self.iterations[chosen] = rank[better], snapshot.iteration
        self.evaluated[rows] = snapshot.iteration + 1
        if snapshot.losses:
            losses, margins, weights = (
                _by_image(snapshot.losses),
                snapshot.margins.T.tolist(),
                snapshot.weights.T.tolist(),
            )
            for row, loss, margin, weight in zip(rows.tolist(), losses, margins, weights, strict=True):
                self.history[row].append(loss)
                self.margins[row].append(tuple(margin))
                self.weights[row].append(tuple(weight))
            if snapshot.pulls is not None:
                norms, pulls = _by_image(snapshot.pulls.norms), _by_image(snapshot.pulls.pulls)
                for row, *each in zip(rows.tolist(), norms, pulls, strict=True):
                    self.measured[row].append(MeasuredPulls(snapshot.iteration, *each))

    @torch.no_grad()
    def spend_rest(self, budget: Budget, batch: PreparedBatch, last: Snapshot) -> None:
        """Let the ``last`` iterate compete once more, moved from the clean latents on or back to
        the edge of the budget."""
        start = batch.render.trajectory.start

        def moved(factors: Tensor, rows: Tensor | slice) -> tuple[Tensor, AttackState]:
            state = select_rows(last.state, rows)
            pixels = state.pixels and state.pixels.scaled(factors)
            pull = None if state.pull is None else factors * state.pull
            latents = torch.lerp(start[rows], last.latents[rows], spread(factors, start))
            return latents, replace(state, pixels=pixels, pull=pull)

        def shown(factors: Tensor, rows: Tensor) -> Tensor:
            latents, state = moved(factors, rows)
            return select_rows(batch.render, rows).pushed(state.pull)(latents, added=state.added).images

        factors, images = furthest_kept(budget, batch.images, batch.observe.clean.images, shown)
        latents, state = moved(factors, slice(None))
        edge = replace(last, latents=latents, state=state, images=images, losses={})
        self.select_best(edge, *_rank_within(budget, batch, images))

    def outcome(self, batch: PreparedBatch, effort: Effort) -> Outcome:
        """The kept iterates, with their control and their attention."""
        images, budget = quantise(self.images), batch.method.budget
        return Outcome(
            images=images,
            noise=_noise(batch, self.latents, self.added),
            iterations=self.iterations,
            evaluated=self.evaluated,
            history=tuple(tuple(each) for each in self.history),
            margins=tuple(tuple(each) for each in self.margins),
            weights=tuple(tuple(each) for each in self.weights),
            on_path=attention_on_path(batch, self.latents, self.pull),
            on_file=attention_on_file(batch, images),
            spent=budget and budget.spent_by_files(batch.images, images),
            pixel_share=None if self.added is None else pixel_share(batch.images, images, self.added),
            measured=tuple(map(tuple, self.measured)),
            idle_terms=tuple(
                idle_terms({each.iteration: each.norms for each in measured}, losses, batch.method.objective.holding)
                for measured, losses in zip(self.measured, self.history, strict=True)
            ),
            effort=effort,
        )


def _rank(
    surrogates: Surrogates, images: Tensor, snapshot: Snapshot, confidence: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rank of each iterate [active,2], lower is better, compared left to right; whether it fools;
    its 8-bit image.

    Iterates that fool all surrogates by ``confidence``, also when rounded to 8 bits, are ranked by
    their distance to the image; the others stand behind them, by the largest margin.
    """
    rounded = quantise(snapshot.images)
    worst = snapshot.margins.max(0).values
    fooled = worst < -confidence
    if bool(fooled.any()):
        worst = torch.where(fooled, surrogates.judge(rounded)[1].max(0).values, worst)
        fooled = worst < -confidence
    distance = (rounded - images).square().flatten(1).mean(1)
    rank = torch.where(fooled, distance, worst)
    return torch.stack([(~fooled).to(rank), rank], 1), fooled, rounded


@torch.no_grad()
def _rank_within(budget: Budget, batch: PreparedBatch, images: Tensor, compared: bool = True) -> tuple[Tensor, Tensor]:
    """The 8-bit form of ``images`` [batch,3,height,width], and its rank [batch,2], lower is better.

    Images within the budget are ranked by the largest margin over the surrogates and the views of
    the first iteration; the others, and all that are not ``compared``, are never taken.
    """
    rounded, rank = quantise(images), images.new_full((len(images), 2), torch.inf)
    kept = budget.keeps(batch.images, rounded).nonzero()[:, 0] if compared else rank.new_empty(0)
    if len(kept):
        within = select_rows(batch, kept.cpu())
        views = within.surrogates_at(0).views
        seen = [within.surrogates.judge(view(rounded[kept]), exact=False)[1] for view in views]
        rank[kept] = torch.stack([rank.new_zeros(len(kept)), torch.cat(seen).max(0).values], 1)
    return rounded, rank


def _by_image(values: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Values [active] by name, as one dictionary an image; a GPU is waited for once."""
    columns = torch.stack([each.double() for each in values.values()], 1).tolist()
    return [dict(zip(values, each, strict=True)) for each in columns]


def _less(left: Tensor, right: Tensor) -> Tensor:
    return (left[:, 0] < right[:, 0]) | ((left[:, 0] == right[:, 0]) & (left[:, 1] < right[:, 1]))


@part("controls")
@torch.no_grad()
def _noise(batch: PreparedBatch, latents: Tensor, added: Tensor | None) -> Tensor:
    """Images [batch,3,height,width] of latents and pixels moved as far as the attack moved them, in
    a random direction."""
    seed, ids = batch.method.recipe.seed, batch.key.ids
    pixels = None if added is None else random_step(torch.zeros_like(added), added, seed, ids)
    return batch.render(random_step(batch.render.trajectory.start, latents, seed, ids), added=pixels).images
