"""A consumer of the loop: which iterate of each image is kept, and when an image is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attnshift.attack.loop import Snapshot, attack
from attnshift.attack.prepare import PreparedBatch
from attnshift.attention.maps import phrase_map
from attnshift.attention.selection import Selection
from attnshift.data.images import quantise
from attnshift.diffusion.denoising import denoise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.profiling import part
from attnshift.randomness import random_step

__all__ = ["Outcome", "run_attack"]

_EVERYWHERE = Selection(places=("down", "mid", "up"), grid="all")


@dataclass(frozen=True)
class Outcome:
    """Result of a batch. ``images`` [batch,3,height,width] are multiples of 1/255: what is saved is what was judged.

    ``noise`` [batch,3,height,width] is a control: the start latents moved as far as the attack moved them (L2 norm),
    but in a random direction.
    ``iterations`` [batch] is the iterate that was kept, ``evaluated`` [batch] how many iterates were looked at;
    ``history`` holds for each image the weighted losses of every iteration, ``weights`` the share of each surrogate in
    its direction. ``attention_clean`` and ``attention_attacked`` are the true phrase's attention before and after the
    attack, one [side,side] for each image.
    """

    images: Tensor
    noise: Tensor
    iterations: Tensor
    evaluated: Tensor
    history: tuple[tuple[dict[str, float], ...], ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    attention_clean: tuple[Tensor, ...]
    attention_attacked: tuple[Tensor, ...]


@part("bookkeeping")
def run_attack(batch: PreparedBatch, watch: Callable[[Snapshot], None] | None = None) -> Outcome:
    """Run the attack on ``batch`` and keep of each image what its recipe asks for."""
    policy = batch.method.recipe.finish
    count = len(batch.images)
    images = batch.clean.images.clone()
    latents = batch.trajectory.start.clone()
    score = torch.full((count, 2), torch.inf, dtype=images.dtype, device=images.device)
    iterations, evaluated = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    history: list[list[dict[str, float]]] = [[] for _ in range(count)]
    weights: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
    loop = attack(batch)
    finished = None
    while True:
        try:
            snapshot = loop.send(finished)
        except StopIteration:
            break
        rows = snapshot.rows
        rounded = quantise(snapshot.images)
        candidate, fooled = _score(
            batch.surrogates.rows(rows), batch.images[rows], snapshot, rounded, policy.confidence
        )
        better = _less(candidate, score[rows]) if policy.keep == "best" else torch.ones_like(fooled)
        chosen = rows[better.cpu()]
        images[chosen], latents[chosen], score[chosen] = rounded[better], snapshot.latents[better], candidate[better]
        iterations[chosen] = snapshot.iteration
        evaluated[rows] = snapshot.iteration + 1
        for place, row in enumerate(rows.tolist()):
            if snapshot.losses:
                history[row].append({name: float(values[place]) for name, values in snapshot.losses.items()})
                weights[row].append(tuple(snapshot.weights[:, place].tolist()))
        if watch:
            watch(snapshot)
        finished = fooled if policy.early else None
    attention_clean, attention_attacked = _attention(batch, latents)
    return Outcome(
        images=quantise(images),
        noise=_noise(batch, latents),
        iterations=iterations,
        evaluated=evaluated,
        history=tuple(tuple(each) for each in history),
        weights=tuple(tuple(each) for each in weights),
        attention_clean=attention_clean,
        attention_attacked=attention_attacked,
    )


def _score(
    surrogates: Surrogates, images: Tensor, snapshot: Snapshot, rounded: Tensor, confidence: float
) -> tuple[Tensor, Tensor]:
    """Rank of each iterate, lower is better, compared left to right [active,2]; and whether it fools every surrogate.

    Iterates that fool all surrogates by ``confidence``, also when rounded to 8 bits, are ranked by their distance to
    the image; the others stand behind them, by the largest margin.
    """
    worst = snapshot.margins.max(0).values
    fooled = worst < -confidence
    if bool(fooled.any()):
        worst = torch.where(fooled, surrogates.judge(rounded)[1].max(0).values, worst)
        fooled = worst < -confidence
    distance = (rounded - images).square().flatten(1).mean(1)
    rank = torch.where(fooled, distance, worst)
    return torch.stack([(~fooled).to(rank), rank], 1), fooled


def _less(left: Tensor, right: Tensor) -> Tensor:
    return (left[:, 0] < right[:, 0]) | ((left[:, 0] == right[:, 0]) & (left[:, 1] < right[:, 1]))


@part("controls")
@torch.no_grad()
def _noise(batch: PreparedBatch, latents: Tensor) -> Tensor:
    """What the latents show when a random step takes the place of the attack's, [batch,3,height,width]."""
    seed = batch.method.recipe.seed
    return batch.render(random_step(batch.trajectory.start, latents, seed, batch.identities)).images


@part("controls")
@torch.no_grad()
def _attention(batch: PreparedBatch, latents: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The true phrase's attention at every cross-attention site, on the clean path and on the kept one."""
    sites = _EVERYWHERE.sites(batch.backbone.sites(batch.images.shape[-1]), "cross", latents.shape[-1])
    before, after = (
        tuple(phrase_map(attention, sites, _EVERYWHERE, span, image).cpu() for image, span in enumerate(batch.tokens))
        for _, attention in (
            denoise(batch.backbone, batch.trajectory, start, sites) for start in (batch.trajectory.start, latents)
        )
    )
    return before, after
