"""Alignment at one point of an attack's path: cosines, at the start latents, of what a term lowers
with what lowers the margins of unseen classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.prepare import PreparedBatch
from attnshift.batching import concatenated, image_norms, image_units, spread
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import into_range
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.losses.classification import margins
from attnshift.losses.objective import evaluate_term
from attnshift.randomness import normal_like
from attnshift.results.inspection import EVERY
from attnshift.studies.inspection.probes import TermProbe
from attnshift.types import Branch, Goals

__all__ = ["Alignment", "Prompts", "align_with"]

_FLOOR = 1e-6
"""Least norm of a gradient, relative to that of the surrogates' margins. Below it there is rounding
alone, and rounding is no direction."""

_REST = 1e-6
"""Value of a term without sites, a distance between images, at which it is at rest. The images then
differ by rounding, far below a step of 1/255, and the slope of a norm or an absolute value there
follows the signs of rounding."""


@dataclass(frozen=True)
class Alignment:
    """One direction of a batch. ``cosine`` and ``ratio`` are [batch], nan where there is no
    gradient."""

    kind: str
    name: str
    place: str
    side: int
    head: int
    step: int
    cosine: Tensor
    ratio: Tensor


@dataclass(frozen=True)
class Prompts:
    """Prompts of a batch beside the image's own: the interference prompt, one that names both
    classes, and the empty prompt."""

    other: Conditioning
    both: Conditioning
    empty: Conditioning


@dataclass(frozen=True)
class _Point:
    """What all directions at one point are compared with.

    ``unseen`` are the unit gradients of the tuning classifiers' margins, [models,batch,size];
    ``unit`` [batch] is the norm of the recipe's classification gradient, ``least`` [batch] the norm
    from which on a gradient is more than rounding.
    """

    unseen: Tensor
    unit: Tensor
    least: Tensor

    def compare(self, gradient: Tensor, kind: str, name: str, probe: TermProbe | None = None) -> Alignment:
        """``gradient`` [batch,channels,rows,columns] of what is lowered."""
        flat = gradient.flatten(1)
        norm = flat.norm(dim=1)
        there = norm > self.least
        cosine = (self.unseen * flat).sum(2).mean(0) / norm
        ratio = torch.where(self.unit > 0, norm / self.unit, torch.nan)
        read = ("", 0, EVERY, EVERY) if probe is None else (probe.place, probe.side, probe.head, probe.step)
        return Alignment(kind, name, *read, torch.where(there, cosine, torch.nan), torch.where(there, ratio, torch.nan))


def align_with(
    tuning: Sequence[Classifier],
    batch: PreparedBatch,
    probes: Sequence[TermProbe],
    latents: Tensor,
    iteration: int,
    prompts: Prompts | None = None,
    added: Tensor | None = None,
) -> tuple[list[Alignment], Branch]:
    """All directions at ``latents`` [batch,channels,rows,columns], and the branch that they show.

    Pixels ``added`` [batch,3,height,width] count to what the latents show. ``iteration`` counts the
    updates before this point. ``batch`` is prepared for the sites of all
    ``probes``. Gradients are those of the whole chain, as in the attack; terms have weight 1.
    """
    iteration = min(iteration, batch.observe.iterations - 1)
    latents = latents.detach().requires_grad_()
    with torch.enable_grad():
        branch = batch.render(latents, batch.observe.sites, added)
        seen = batch.observe(branch, iteration)
        goals = batch.surrogates.goals
        unseen = [_units(_pulled(_margin(each, branch.images, goals), latents)) for each in tuning]
        own = [_pulled(_margin(each, branch.images, goals), latents) for each in batch.surrogates.classifiers]
        fused = _classification(batch, branch, latents, iteration)
        least = _FLOOR * torch.stack([image_norms(each) for each in own]).mean(0)
        norms = image_norms(fused)
        point = _Point(torch.stack(unseen), torch.where(norms > least, norms, 0), least)
        found = [point.compare(each, "surrogate", name) for name, each in zip(batch.surrogates.names, own, strict=True)]
        found.append(point.compare(fused, "classification", "the recipe's classification"))
        for probe in probes:
            value = evaluate_term(probe.term, seen)[0]
            found.append(point.compare(_moving(probe, value, _pulled(value, latents)), "term", probe.name, probe))
    key = batch.key
    null = normal_like(latents, key.seed, key.ids, iteration, "inspection")
    found.append(replace(point.compare(null, "random", "random direction"), ratio=torch.full_like(least, torch.nan)))
    if prompts is not None:
        found += _directions(tuning, batch, latents.detach(), prompts, added)
    return found, _constant(branch)


def _classification(batch: PreparedBatch, branch: Branch, latents: Tensor, iteration: int) -> Tensor:
    """Gradient at the latents of the recipe's classification, with its views and fusion, at weight
    1."""
    points = latents if batch.method.recipe.classification.space == "latent" else branch.images
    direction = batch.method.rule(batch.surrogates_at(iteration), points, None).direction.detach()
    return _pulled((points * direction).flatten(1).sum(1), latents)


def _directions(
    tuning: Sequence[Classifier], batch: PreparedBatch, latents: Tensor, prompts: Prompts, added: Tensor | None
) -> Iterator[Alignment]:
    """Differences of two prompts' noise predictions, step by step, each against the gradients at
    the latents that enter its step.

    ``prompts``: from the image's own prompt to the interference prompt. ``boundary``: from the
    empty prompt to one that names both (NatADiff, ICLR 2026). A step takes noise away, so that
    following a prediction moves the latents against it.
    """
    trajectory, backbone, goals = batch.render.trajectory, batch.render.backbone, batch.surrogates.goals
    texts = (prompts.other, trajectory.text, prompts.both, prompts.empty)
    nothing = torch.zeros(len(latents), device=latents.device)
    for step in range(len(trajectory.noise_schedule)):
        rest = replace(batch.render, trajectory=_steps(trajectory, step, None))
        entering = latents.detach().requires_grad_()
        with torch.enable_grad():
            images = rest(entering, added=added).images
            unseen = [_units(_pulled(_margin(each, images, goals), entering)) for each in tuning]
        point = _Point(torch.stack(unseen), nothing, nothing)
        with torch.no_grad():
            timestep = trajectory.noise_schedule.timesteps[step]
            predicted = backbone.denoise(torch.cat([latents] * len(texts)), timestep, concatenated(texts)).output
            other, own, both, empty = predicted.chunk(len(texts))
            for name, difference in (("prompts", other - own), ("boundary", both - empty)):
                yield replace(point.compare(difference, "direction", name), step=step)
            latents, _ = denoise(backbone, _steps(trajectory, step, step + 1), latents)


def _steps(trajectory: Trajectory, first: int, end: int | None) -> Trajectory:
    """The denoising steps of ``trajectory`` from ``first`` on, before ``end``."""
    schedule, offsets = trajectory.noise_schedule, trajectory.offsets
    levels = schedule.levels[first : None if end is None else end + 1]
    return replace(
        trajectory,
        noise_schedule=replace(schedule, timesteps=schedule.timesteps[first:end], levels=levels),
        unconditional=trajectory.unconditional[first:end],
        offsets=None if offsets is None else offsets[first:end],
    )


def _margin(classifier: Callable[[Tensor], Tensor], images: Tensor, goals: Goals) -> Tensor:
    return margins(classifier(into_range(images)), goals)


def _pulled(values: Tensor, latents: Tensor) -> Tensor:
    """Gradient of ``values`` [batch] at ``latents``; zero for a constant."""
    if not values.requires_grad:
        return torch.zeros_like(latents)
    (gradient,) = torch.autograd.grad(values.sum(), latents, retain_graph=True, allow_unused=True)
    return torch.zeros_like(latents) if gradient is None else gradient


def _moving(probe: TermProbe, value: Tensor, gradient: Tensor) -> Tensor:
    """``gradient`` [batch,...], zero where a distance between images [batch] is at rest."""
    if probe.place:
        return gradient
    return gradient * spread(value.detach() > _REST, gradient)


def _units(gradient: Tensor) -> Tensor:
    """Unit vectors [batch,size]; zero where there is no gradient."""
    return image_units(gradient.flatten(1))


def _constant(branch: Branch) -> Branch:
    attention = {site: tuple(each.detach() for each in maps) for site, maps in branch.attention.items()}
    return Branch(branch.latents.detach(), branch.images.detach(), attention)
