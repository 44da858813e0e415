"""The way of AdvFM: velocities that lead to a perturbed end of the flow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.baselines.edits import Edit, EditInput
from attnshift.baselines.sign_steps import FusedDirection
from attnshift.batching import batch_record, constant, per_image, spread
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Trajectory, denoise, guided_prediction, retraced
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.diffusion.visits import Visit
from attnshift.sizes import Sides, size_of

if TYPE_CHECKING:
    from attnshift.baselines.advfm import AdvFM

__all__ = ["Velocities", "even_levels", "prepare_velocities"]


def even_levels(backbone: Backbone, start: float, steps: int, size: Sides = 0) -> NoiseSchedule:
    """The levels of a flow from ``start`` down to 0 in even ``steps``, for images of ``size``.

    A flow's timesteps are in proportion to its levels.
    """
    own = backbone.noise_schedule(steps, steps, size)
    levels = [start * (1 - at / steps) for at in range(steps + 1)]
    timesteps = tuple(own.timesteps[0] / own.levels[0] * level for level in levels[:-1])
    return NoiseSchedule(timesteps, tuple(levels), min(1.0, start * (1 + 1 / steps)), own.path)


@batch_record
class Velocities(Edit):
    """AdvFM on prepared images, on the way back from their inverted latents.

    ``deviation`` [batch] is the standard deviation of each image's latents. ``residual``
    [batch,3,height,width] is what the autoencoder loses of each image, None where it is not added.
    """

    options: AdvFM = constant()
    trajectory: Trajectory = per_image()
    deviation: Tensor = per_image()
    residual: Tensor | None = per_image()

    @torch.no_grad()
    def floor(self) -> Tensor:
        return self.shown(self.unmoved()).clamp(0, 1)

    @torch.no_grad()
    def __call__(self, strengths: Tensor) -> Tensor:
        latents, units = self.trajectory.start, spread(strengths * self.deviation, self.trajectory.start)
        near, ahead = (FusedDirection(self.options.rule(), self.given.surrogates) for _ in range(2))
        for visit in self.trajectory.way:
            velocity = self._velocity(latents, visit)
            change = torch.zeros_like(latents)
            for update in range(self.options.steps):
                draw = visit.number * self.options.steps + update
                gradient = self._gradient(visit, latents, velocity, change, (near, ahead), draw)
                change = change - self.options.pace * units * gradient.sign()
                change = torch.clamp(change, -self.options.epsilon * units, self.options.epsilon * units)
            latents = self._moved(visit, latents, velocity, change)
        return self.shown(latents).clamp(0, 1)

    def unmoved(self) -> Tensor:
        """The latents at the end of the way without the attack."""
        return denoise(self.given.backbone, self.trajectory, self.trajectory.start)[0]

    def shown(self, latents: Tensor) -> Tensor:
        """The images that ``latents`` without noise show, near [0,1]."""
        return self.given.decoded(latents, self.residual)

    def _velocity(self, latents: Tensor, visit: Visit) -> Tensor:
        return guided_prediction(self.given.backbone, self.trajectory, latents, visit.index)[0]

    def _moved(self, visit: Visit, latents: Tensor, velocity: Tensor, change: Tensor) -> Tensor:
        """The latents after ``visit``, along the velocity that leads to an end moved by
        ``change``."""
        level = self.trajectory.noise_schedule.levels[visit.index]
        return self.trajectory.moved(visit, latents, velocity - change / level)

    def _gradient(
        self,
        visit: Visit,
        latents: Tensor,
        velocity: Tensor,
        change: Tensor,
        directions: tuple[FusedDirection, FusedDirection],
        draw: int,
    ) -> Tensor:
        """Gradient at ``change`` of the weighted losses at both ends.

        At the last step both are one. ``directions`` are those of the surrogates at each end, under
        the random draws of ``draw``.
        """
        following = self.trajectory.way[visit.number + 1 : visit.number + 2]
        weight = self.options.end_weight if following else 1.0
        change = change.requires_grad_()
        gradient, (near, ahead) = torch.zeros_like(change), directions
        if weight:
            with torch.enable_grad():
                shown = self.shown(self.trajectory.preview(visit, latents, velocity) + change)
            gradient += weight * _pulled_back(shown, change, near, draw)
        if weight < 1:
            with torch.enable_grad():
                shown = self.shown(self._end_after(following[0], self._moved(visit, latents, velocity, change)))
            gradient += (1 - weight) * _pulled_back(shown, change, ahead, draw)
        return gradient

    def _end_after(self, visit: Visit, latents: Tensor) -> Tensor:
        """The end that the velocity at ``latents`` before ``visit`` predicts."""
        seen = latents if self.options.gradient == "exact" else latents.detach()
        return self.trajectory.preview(visit, latents, self._velocity(seen, visit))


def _pulled_back(shown: Tensor, change: Tensor, direction: FusedDirection, draw: int) -> Tensor:
    """Gradient at ``change`` of what the surrogates lower at ``shown``, which is computed of it."""
    return torch.autograd.grad(shown, change, direction(draw, shown.detach()))[0]


@torch.no_grad()
def prepare_velocities(options: AdvFM, given: EditInput) -> Velocities:
    """AdvFM with ``options`` on ``given``, images inverted under their prompts."""
    backbone = given.backbone
    schedule = even_levels(backbone, options.start_level, options.schedule_steps, size_of(given.images))
    text, latents = backbone.embed(given.prompts), backbone.encode(given.images)
    stored = invert(backbone, schedule, latents, text, "aligned")
    bare = Trajectory(schedule, stored[0], text, (text,) * len(schedule), None, 1.0)
    made = Velocities(given, options, retraced(backbone, bare, stored), latents.flatten(1).std(1), None)
    return replace(made, residual=given.images - made.shown(made.unmoved())) if options.residual else made
