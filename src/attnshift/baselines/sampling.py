"""Guided sampling that attacks steer, from the inverted image back to it or from noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor

from attnshift.baselines.edits import Edit, EditInput
from attnshift.batching import batch_record, constant, per_image, select_rows
from attnshift.data.images import quantise
from attnshift.diffusion.denoising import Trajectory, guided_prediction, retraced, travelling
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.noise_schedule import NoisePath
from attnshift.diffusion.visits import Visit
from attnshift.ensemble.surrogates import Surrogates
from attnshift.randomness import normal_like
from attnshift.sizes import size_of

if TYPE_CHECKING:
    from attnshift.baselines.guided import GuidedBaseline

__all__ = ["Sampled", "Steering", "preview", "way_of"]


def preview(path: NoisePath, latents: Tensor, prediction: Tensor, level: float) -> Tensor:
    """The latents without noise that ``prediction`` says of those at ``level`` of ``path``."""
    return path.step(latents, prediction, level, path.clean)


class Steering(Protocol):
    """Terms that are added to guided sampling. ``aims`` [batch] are the classes that they aim at,
    None before one is chosen."""

    aims: Tensor | None

    def prediction(self, latents: Tensor, visit: Visit) -> Tensor:
        """The prediction for ``latents`` [batch,channels,rows,columns] that the step follows."""
        ...

    def moved(self, latents: Tensor, prediction: Tensor, visit: Visit) -> Tensor:
        """The ``latents`` after the step, moved."""
        ...


@batch_record
class Sampled(Edit):
    """Attack that steers the way from an inverted image back to it, or from noise, in attempts.

    ``residual`` [batch,3,height,width] is what the autoencoder loses of each image, None where it
    is not added.
    """

    options: GuidedBaseline = constant()
    trajectory: Trajectory = per_image()
    residual: Tensor | None = per_image()

    @property
    @abstractmethod
    def attempts(self) -> int:
        """The most attempts on an image; it has no more once all surrogates are fooled."""

    @abstractmethod
    def steering(self, strengths: Tensor, attempt: int) -> Steering:
        """The terms in that attempt, from 0, each image's own of ``strengths`` [batch] on them."""

    def onwards(self, start: Tensor, end: Tensor, aims: Tensor | None, strengths: Tensor) -> Tensor:
        """The start of the next attempt, after one from ``start`` to ``end``."""
        return start

    @torch.no_grad()
    def floor(self) -> Tensor:
        return self.shown(self.sample(self.trajectory.start)).clamp(0, 1)

    @torch.no_grad()
    def __call__(self, strengths: Tensor) -> Tensor:
        found = torch.empty_like(self.given.images)
        rows = torch.arange(len(found), device=found.device)
        rest, start = self, self.trajectory.start
        for attempt in range(self.attempts):
            steering = rest.steering(strengths, attempt)
            end = rest.sample(start, steering)
            found[rows] = images = rest.shown(end).clamp(0, 1)
            going = (rest.given.surrogates.judge(quantise(images))[1].max(0).values >= 0).nonzero()[:, 0]
            if attempt + 1 == self.attempts or not len(going):
                break
            rest, rows, strengths = select_rows(rest, going), rows[going], strengths[going]
            aims = None if steering.aims is None else steering.aims[going]
            start = rest.onwards(start[going], end[going], aims, strengths)
        return found

    def sample(self, latents: Tensor, steering: Steering | None = None) -> Tensor:
        """The latents [batch,channels,rows,columns] to which the way leads from ``latents``."""
        trajectory = self.trajectory
        for visit in trajectory.way:
            if steering is None:
                prediction = guided_prediction(self.given.backbone, trajectory, latents, visit.index)[0]
            else:
                prediction = steering.prediction(latents, visit)
            latents = trajectory.moved(visit, latents, prediction)
            if steering is not None:
                latents = steering.moved(latents, prediction, visit)
            latents = trajectory.renewed(visit, latents)
        return latents

    @torch.no_grad()
    def regaining(self) -> Self:
        """The same attack, whose control arm is the image again."""
        return replace(self, residual=self.given.images - self.shown(self.sample(self.trajectory.start)))

    def shown(self, latents: Tensor) -> Tensor:
        """The images that ``latents`` without noise show, near [0,1]."""
        return self.given.decoded(latents, self.residual)

    def uphill(self, surrogates: Surrogates, points: Tensor, images: Tensor, aims: Tensor) -> Tensor:
        """Gradient at ``points`` of log p of the classes ``aims`` [batch] in ``images``, which are
        computed of them, by the fusion rule."""
        goals = replace(surrogates.goals, targets=aims)
        fused = self.options.rule()(replace(surrogates, goals=goals), images.detach())
        return torch.autograd.grad(images, points, -fused.direction)[0]


@torch.no_grad()
def way_of(options: GuidedBaseline, given: EditInput, planned: Sequence[Visit]) -> Trajectory:
    """The way that an attack with ``options`` steers, for the visits ``planned``: from the images
    of ``given``, inverted conditionally, or from noise that its key names.

    Each visit of the way of an image has an offset, so that sampling without an attack passes
    through the inverted latents.
    """
    backbone, key = given.backbone, given.key
    schedule = backbone.noise_schedule(options.schedule_steps, options.way, size_of(given.images))
    text, empty = backbone.embed(given.prompts), backbone.embed([""] * len(given.images))
    latents = backbone.encode(given.images)
    if options.generates:
        stored: Sequence[Tensor] = (normal_like(latents, key.seed, key.ids, "generation"),)
    else:
        stored = invert(backbone, schedule, latents, text, "aligned")
    bare = Trajectory(schedule, stored[0], text, (empty,) * len(schedule), None, options.guidance)
    made = travelling(bare, planned, key)
    return made if options.generates else retraced(backbone, made, stored)
