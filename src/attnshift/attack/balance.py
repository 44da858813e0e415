"""The pull of each term on the latents: measured, and balanced so that a coefficient is a share.

A term's *slope* is its gradient at what it reads (images and attention maps); its *gradient* is
that at the latents, behind the denoising steps and the decoder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.batching import batch_record, constant, image_norms, per_image, spread
from attnshift.metrics.budget import Budget
from attnshift.types import Branch

__all__ = ["BOUND", "CLASSIFIERS", "Balance", "Pulling", "Pulls", "held_at", "idle_terms", "readable_branch"]

BOUND = 1e4
"""Highest factor by which balance amplifies a term. In fp32 the rounding of a term's gradient is at
most 1e-8 of the classification's, and at the bound 1e-4."""
CLASSIFIERS = "classification"
_EVERY = 15
"""Iterations between two measurements of a gain that is known."""
_DECAY = 0.8
"""Share of the past in a running mean."""

Slope = Mapping[int, Tensor]
"""A gradient at some of the outputs of the denoiser and the decoder, by their place."""


@batch_record
class Pulls:
    """Norms [batch] of gradients at the latents, by term; the classification is one of them.

    ``norms`` are those before weight and balance, ``pulls`` those of the parts of the update.
    """

    norms: Mapping[str, Tensor] = per_image(depth=1)
    pulls: Mapping[str, Tensor] = per_image(depth=1)


@dataclass(frozen=True)
class Pulling:
    """All that pulls on ``latents`` [batch,...] in an iteration, and on the pixels ``added``.

    ``branch`` shows both. ``direction`` [batch,...] is the classification's gradient at
    ``points``, what the classifiers see or the latents, and ``force`` that of a budget at the
    images or the latents, if there is one.
    ``values`` are the weighted terms [batch], and ``weights`` theirs and the classification's.
    """

    latents: Tensor
    branch: Branch
    points: Tensor
    direction: Tensor
    force: Tensor | None
    values: Mapping[str, Tensor]
    weights: Mapping[str, float]
    added: Tensor | None = None

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """All that moves: the latents, and the pixels if there are any."""
        return (self.latents,) if self.added is None else (self.latents, self.added)

    def summed(self) -> tuple[Tensor, ...]:
        """The gradient at the leaves of the objective as the recipe weighs it, by one backward
        pass."""
        weight = self.weights[CLASSIFIERS]
        pushed, pulls = weight * self.direction, []
        if self.force is not None:
            # The force has the classification's unit, also where that takes no part.
            force = (weight or 1.0) * self.force
            if self.held is self.points:
                pushed = pushed + force
            else:
                pulls.append((self.held * force).flatten(1).sum(1))
        pulls.append((self.points * pushed).flatten(1).sum(1))
        total = torch.stack([*pulls, *self.values.values()]).sum()
        return torch.autograd.grad(total, self.leaves, materialize_grads=True)

    def measured(self, holding: Collection[str]) -> Pulls | None:
        """The pulls of the terms that steer in that objective, and the classification's, by one
        backward pass each; the graph stays. None where no term steers."""
        steering = {name: value / self.weights[name] for name, value in self.values.items() if name not in holding}
        if not steering:
            return None
        pulling = {CLASSIFIERS: (self.points * self.direction).flatten(1).sum(1)} | steering
        norms = {}
        for name, value in pulling.items():
            norms[name] = self.latents.new_zeros(len(self.latents))
            # A term that reads only steps without a gradient is a constant.
            if value.requires_grad:
                norms[name] = image_norms(torch.autograd.grad(value.sum(), self.latents, retain_graph=True)[0])
        return Pulls(norms, {name: self.weights[name] * norm for name, norm in norms.items()})

    @property
    def held(self) -> Tensor:
        """The place of a budget's force."""
        return held_at(self.branch, self.points, self.latents)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """All that a slope can be taken at: what terms read of the branch, the latents, and what
        the classifiers see."""
        return (*_outputs(self.branch), self.latents, self.points)

    def slopes(self, read: Branch) -> dict[str, Slope]:
        """The slopes of the classification and of the terms, before their weights.

        The terms have read the branch ``read``, which is ``readable_branch``.
        """
        slopes = {CLASSIFIERS: self._at(self.points, self.direction)}
        leaves = {at: leaf for at, leaf in enumerate(_outputs(read)) if leaf.requires_grad}
        for name, value in self.values.items():
            slopes[name] = {}
            if value.requires_grad:
                found = torch.autograd.grad(value.sum(), [*leaves.values()], retain_graph=True, allow_unused=True)
                there = ((at, each) for at, each in zip(leaves, found, strict=True) if each is not None)
                slopes[name] = {at: each / self.weights[name] for at, each in there}
        return slopes

    def size(self, slope: Slope) -> Tensor:
        """Norm [batch] of a slope over all outputs, of a map at the scores before its softmax.

        A saturated map hardly moves with its scores, and the gradient changes with that.
        """
        norms = [image_norms(self._at_scores(at, each)) for at, each in slope.items()]
        return torch.stack(norms).norm(dim=0) if norms else self.latents.new_zeros(len(self.latents))

    def _at_scores(self, at: int, slope: Tensor) -> Tensor:
        maps = [site.form == "map" for site, steps in self.branch.attention.items() for _ in steps]
        if not (2 <= at < 2 + len(maps) and maps[at - 2]):
            return slope
        probabilities = self.outputs[at].detach()
        return probabilities * (slope - (probabilities * slope).sum(-1, keepdim=True))

    def pressed(self, holding: Collection[str]) -> Slope:
        """The slope of the budget's force, with the weights of all that it stands against where
        coefficients are shares: the classification's and those of the terms that steer."""
        weight = sum(each for name, each in self.weights.items() if name not in holding)
        return {} if self.force is None else self._at(self.held, weight * self.force)

    def back(self, slope: Slope) -> tuple[Tensor, ...]:
        """The gradient at the leaves of what has the gradient ``slope`` at the outputs."""
        outputs = self.outputs
        there = {at: each for at, each in slope.items() if outputs[at].requires_grad and bool(each.any())}
        if not there:
            return tuple(map(torch.zeros_like, self.leaves))
        starts, slopes = [outputs[at] for at in there], [*there.values()]
        return torch.autograd.grad(starts, self.leaves, slopes, retain_graph=True, materialize_grads=True)

    def _at(self, place: Tensor, slope: Tensor) -> Slope:
        return {next(at for at, each in enumerate(self.outputs) if each is place): slope}


def held_at(branch: Branch, points: Tensor, latents: Tensor) -> Tensor:
    """The place of a budget's force: the images of ``branch``, or the ``latents`` where the
    classification's gradients are taken there, at ``points``."""
    return latents if points is latents else branch.images


def readable_branch(branch: Branch) -> Branch:
    """``branch`` cut off from the latents, so that a gradient ends at what terms read."""

    def cut(output: Tensor) -> Tensor:
        return output.detach().requires_grad_(output.requires_grad)

    attention = {site: tuple(map(cut, steps)) for site, steps in branch.attention.items()}
    return Branch(cut(branch.latents), cut(branch.images), attention)


@batch_record
class Balance:
    """Coefficients as shares of the classification's pull, for each image by itself.

    A term that steers is scaled by U / N, with U and N running means of the norms of the
    classification's gradient and of its own: its coefficient is its share. A term that holds back
    keeps its shape: it is scaled by U R, with R the running mean of spent / norm, so that its share
    is 0 at the clean image and its coefficient where ``edge`` is spent. Neither factor exceeds
    ``BOUND``; a gradient of 0 stays 0. While the classification has had no gradient, terms count as
    they are.

    The norm of a gradient is estimated as a *gain* times the norm of the term's slope, which is
    known in every iteration. The gain changes slowly, as the denoiser does around the latents: it
    is measured by a backward pass when the term first has a slope, and every 15 iterations. The
    idea of norms on one scale is that of Chen et al., "GradNorm" (ICML 2018).
    """

    edge: Budget = constant()
    holding: frozenset[str] = constant()
    gains: Mapping[str, Tensor] = per_image(depth=1, default_factory=dict)
    """Norm at the latents for a slope of norm 1, [batch]; below 0 while it is not known."""
    means: Mapping[str, Tensor] = per_image(depth=1, default_factory=dict)
    """U, N or R of each term, [batch]; 0 while there is none."""

    @classmethod
    def start(cls, edge: Budget, holding: Iterable[str]) -> Balance:
        return cls(edge, frozenset(holding))

    def step(
        self, parts: Pulling, read: Branch, spent: Tensor, iteration: int
    ) -> tuple[tuple[Tensor, ...], Pulls, Balance]:
        """The gradient of the balanced objective at the leaves, its pulls, and the record after
        it.

        The terms have read the branch ``read``, a ``readable_branch``; ``spent`` [batch] is the
        share of ``edge`` that each image spends. The force of a budget is added as it is.
        """
        slopes, weights = parts.slopes(read), parts.weights
        sizes = {name: parts.size(slope) for name, slope in slopes.items()}
        known = {name: self.gains.get(name, torch.full_like(size, -1.0)) for name, size in sizes.items()}
        due = self._due(sizes, known, iteration)
        measured = {name: parts.back(slopes[name]) for name, rows in due.items() if bool(rows.any())}
        gains, norms = dict(self.gains), {}
        for name, size in sizes.items():
            norms[name] = known[name].clamp(min=0) * size
            if name in measured:
                exact = image_norms(measured[name][0])
                latest = exact / size.clamp(min=1e-30)
                mean = torch.where(known[name] < 0, latest, (known[name] + latest) / 2)
                gains[name] = torch.where(due[name], mean, known[name])
                norms[name] = torch.where(due[name], exact, norms[name])
        after = replace(self, gains=gains, means=self._means_after(norms, spent))
        factors = {name: weights[name] * after.factor(name, norm) for name, norm in norms.items()}
        rest = [_scaled(slope, factors[name]) for name, slope in slopes.items() if name not in measured]
        gradient = parts.back(_summed([parts.pressed(self.holding), *rest]))
        for name, each in measured.items():
            gradient = tuple(own + _weighted(part, factors[name]) for own, part in zip(gradient, each, strict=True))
        return gradient, Pulls(norms, {name: factors[name] * norm for name, norm in norms.items()}), after

    def factor(self, name: str, like: Tensor) -> Tensor:
        """Factor [batch] on the term ``name`` beside its weight."""
        if name == CLASSIFIERS:
            return torch.ones_like(like)
        unit = self.means.get(CLASSIFIERS, torch.zeros_like(like))
        own = self.means.get(name, torch.zeros_like(like))
        balanced = unit * own if name in self.holding else unit / own.clamp(min=1e-30)
        return torch.where(unit > 0, balanced.clamp(max=BOUND), 1.0) * (own > 0)

    def _due(self, sizes: Mapping[str, Tensor], known: Mapping[str, Tensor], iteration: int) -> dict[str, Tensor]:
        """Images [batch] whose gain of a term is to be measured now; the classification's is
        measured with every other one."""
        due = {
            name: (size > 0) & ((known[name] < 0) | (iteration % _EVERY == 0))
            for name, size in sizes.items()
            # The clean image says nothing of a term that keeps images near it.
            if iteration or name not in self.holding
        }
        if CLASSIFIERS in due:
            due[CLASSIFIERS] = torch.stack([*due.values()]).any(0) & (sizes[CLASSIFIERS] > 0)
        return due

    def _means_after(self, norms: Mapping[str, Tensor], spent: Tensor) -> dict[str, Tensor]:
        means = dict(self.means)
        for name, norm in norms.items():
            holds = name in self.holding
            latest = spent.clamp(min=0) / norm.clamp(min=1e-30) * (norm > 0) if holds else norm
            before = means.get(name, torch.zeros_like(latest))
            mean = torch.where(before > 0, torch.lerp(latest, before, _DECAY), latest)
            # A gradient of 0 is no information.
            means[name] = torch.where(latest > 0, mean, before)
        return means


def idle_terms(
    norms: Mapping[int, Mapping[str, float]], losses: Sequence[Mapping[str, float]], holding: Collection[str]
) -> tuple[str, ...]:
    """One line for each term that never acted on an image, with the reason.

    ``norms`` are the image's gradients before weight and balance, by iteration, ``losses`` its
    weighted terms in every iteration. The first iteration, at the clean image, says nothing of a
    term that ``holding`` names.
    """
    names = dict.fromkeys(name for each in norms.values() for name in each if name != CLASSIFIERS)
    lines = []
    for name in names:
        seen = [each for iteration, each in norms.items() if name in each and (iteration or name not in holding)]
        if not seen:
            continue
        if not any(each[name] for each in seen):
            satisfied = all(each.get(name, 0.0) == 0 for each in losses)
            lines.append(f"{name} never acted: {'already satisfied' if satisfied else 'no gradient at its sites'}")
        elif all(each[name] * BOUND < each[CLASSIFIERS] for each in seen):
            lines.append(f"{name} never acted: its gradient is below 1/{BOUND:.0f} of the classification's")
    return tuple(lines)


def _outputs(branch: Branch) -> tuple[Tensor, ...]:
    """The last latents, the images and the maps of ``branch``."""
    return branch.latents, branch.images, *(step for steps in branch.attention.values() for step in steps)


def _scaled(slope: Slope, factors: Tensor) -> Slope:
    return {at: _weighted(each, factors) for at, each in slope.items()}


def _weighted(values: Tensor, factors: Tensor) -> Tensor:
    """``values`` [batch,...] times ``factors`` [batch], in their own precision."""
    return spread(factors.to(values.dtype), values) * values


def _summed(slopes: Iterable[Slope]) -> Slope:
    total: dict[int, Tensor] = {}
    for slope in slopes:
        for at, each in slope.items():
            total[at] = total[at] + each if at in total else each
    return total
