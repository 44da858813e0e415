"""Purification on the levels of Diff-PGD, and PGD behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.baselines.edits import Edit, EditInput
from attnshift.baselines.sign_steps import sign_steps, uniform_offsets
from attnshift.batching import batch_record, constant, per_image, spread
from attnshift.data.images import into_range
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.ddim import linear_levels
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.diffusion.noise_schedule import NoiseSchedule
from attnshift.randomness import normal_like
from attnshift.sizes import Sides, size_of

if TYPE_CHECKING:
    from attnshift.baselines.diffpgd import DiffPGD

__all__ = ["Purified", "ladder", "prepare_purified"]

_TRAINED, _RUNGS = 1000, 50
"""Steps of the diffusion model of the paper, and of the schedule that it is walked with."""


def ladder(backbone: Backbone, depth: int, size: Sides = 0) -> NoiseSchedule:
    """The ``depth`` + 1 steps of ``backbone``, for images of ``size``, whose signal is
    nearest to the paper's.

    Those are every 20th of 1000 steps with linear betas, from number 20 ``depth`` down to 0; the
    last step ends at the predicted image itself.
    """
    alphas = linear_levels(_TRAINED)
    own = backbone.noise_schedule(_TRAINED, _TRAINED - 1, size)
    wanted = [alphas[rung * _TRAINED // _RUNGS] for rung in reversed(range(depth + 1))]
    known = own.alphas
    places = [min(range(len(own)), key=lambda at: abs(known[at] - alpha)) for alpha in wanted]
    reached = (*(own.levels[at] for at in places), own.path.clean)
    return NoiseSchedule(
        tuple(own.timesteps[at] for at in places), reached, own.levels[max(places[0] - 1, 0)], own.path
    )


@batch_record
class Purified(Edit):
    """PGD behind purification along ``noise_schedule``, under the prompts ``text``."""

    options: DiffPGD = constant()
    noise_schedule: NoiseSchedule = constant()
    text: Conditioning = per_image()
    clean: Tensor | None = per_image()
    """The images purified, if every iteration has the same noise and the residual needs them."""

    @torch.no_grad()
    def floor(self) -> Tensor:
        return self.shown(self.given.images, self.options.steps)

    def __call__(self, strengths: Tensor) -> Tensor:
        options, images = self.options, self.given.images
        radius = spread(strengths, images) * options.epsilon
        step_size = spread(strengths, images) * options.pace
        low, high = images - radius, images + radius
        if options.clip == "steps":
            low, high = low.clamp(min=0), high.clamp(max=1)
        points = images
        if options.random_start:
            points = (images + radius * uniform_offsets(images, self.given.key, "start")).clamp(low, high)
        rule, state = options.rule(), None

        def direction(iteration: int, points: Tensor) -> Tensor:
            nonlocal state
            surrogates = self.given.surrogates.at(iteration)
            if options.gradient == "exact":
                fused = rule(replace(surrogates, show=lambda given: self.shown(given, iteration)), points, state)
            else:
                with torch.no_grad():
                    seen = self.shown(points, iteration)
                fused = rule(surrogates, seen, state)
            state = fused.state
            return fused.direction

        points = sign_steps(points, direction, options.steps, step_size, (low, high))
        with torch.no_grad():
            return self.shown(points.clamp(0, 1), options.steps)

    def shown(self, points: Tensor, iteration: int) -> Tensor:
        """What the surrogates see of ``points`` [batch,3,height,width] in ``iteration``."""
        purified = self.purify(points, iteration)
        if not self.options.residual:
            return into_range(purified)
        if self.clean is not None:
            clean = self.clean
        else:
            with torch.no_grad():
                clean = self.purify(self.given.images, iteration)
        return into_range(self.given.images + (purified - clean))

    def purify(self, points: Tensor, iteration: int) -> Tensor:
        """``points`` encoded, noised, denoised and decoded; values may lie outside [0,1]."""
        backbone, schedule, key = self.given.backbone, self.noise_schedule, self.given.key
        latents, level = backbone.encode(points), schedule.levels[0]
        draw = 0 if self.options.noise == "fixed" else iteration
        noise = normal_like(latents, key.seed, key.ids, draw, "purification")
        start = schedule.path.noised(latents, noise, level)
        trajectory = Trajectory(schedule, start, self.text, (self.text,) * len(schedule), None, 1.0)
        return backbone.decode(denoise(backbone, trajectory, start)[0])


@torch.no_grad()
def prepare_purified(options: DiffPGD, given: EditInput) -> Purified:
    """Diff-PGD with ``options`` on ``given``."""
    schedule = ladder(given.backbone, options.depth, size_of(given.images))
    made = Purified(given, options, schedule, given.backbone.embed(given.prompts), None)
    if options.residual and options.noise == "fixed":
        return replace(made, clean=made.purify(given.images, 0))
    return made
