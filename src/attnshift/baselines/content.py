"""Images mapped to noise and back, and the steps of ACA on that noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from attnshift.baselines.edits import Edit, EditInput
from attnshift.batching import batch_record, constant, image_norms, per_image, spread
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import quantise
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.reconstruction import NullText, Offset

if TYPE_CHECKING:
    from attnshift.baselines.aca import ACA

__all__ = ["Mapped", "at_boundary", "prepare_mapped"]

_NULL_TEXT = NullText(
    learning_rate=0.01, rate_decay=0.01, updates_per_step=0, tolerance=1e-5, tolerance_per_step=2e-5, afresh=True
)
"""Null-text inversion as its authors release it, and as the paper uses it."""
_ROUNDING = 1e-6
_STILL = 1e-4
"""Largest change of a value in an image that has not moved."""


def at_boundary(images: Tensor) -> Tensor:
    """Decoded images brought near [0,1] by the paper's map: values outside come within 1e-4 of the
    bounds, and keep a small gradient.

    A bound that is passed by a rounding error is not passed: black and white would have a tenth of
    their gradient, or all of it, by chance.
    """
    above = (torch.tanh(1000 * (images - 1)) + 10000) / 10001
    below = torch.tanh(1000 * images) / 10000
    return torch.where(images > 1 + _ROUNDING, above, torch.where(images < -_ROUNDING, below, images))


@batch_record
class Mapped(Edit):
    """The way from noise to the images, and the attack on where it starts.

    ``residual`` [batch,3,height,width] is what the way loses of each image, None where it is not
    added.
    """

    options: ACA = constant()
    trajectory: Trajectory = per_image()
    residual: Tensor | None = per_image()

    @torch.no_grad()
    def floor(self) -> Tensor:
        return self.shown(self.end(self.trajectory.start)).clamp(0, 1)

    def __call__(self, strengths: Tensor) -> Tensor:
        options, start = self.options, self.trajectory.start
        radius = spread(strengths, start) * options.epsilon
        step_size = spread(strengths, start) * options.pace
        surrogates, rule = replace(self.given.surrogates, show=self.resized), options.rule()
        noise, momentum, state = start, torch.zeros_like(start), None
        found, fooled = self.given.images, torch.zeros_like(strengths, dtype=torch.bool)
        for iteration in range(options.steps):
            end = self.end(noise).requires_grad_()
            with torch.enable_grad():
                shown = self.shown(end)
            seen = shown.detach().clamp(0, 1)
            fused = rule(surrogates.at(iteration), seen, state)
            state, now = fused.state, self._fools(seen, fused.margins)
            found, fooled = torch.where(spread(now, seen), seen, found), fooled | now
            (gradient,) = torch.autograd.grad(shown, end, fused.direction + options.nearness * self._away(seen))
            lengths = gradient.abs().sum((1, 2, 3)).clamp(min=1e-30)
            momentum = options.decay * momentum + gradient / spread(lengths, gradient)
            noise = start + (noise - start - step_size * momentum.sign()).clamp(-radius, radius)
        with torch.no_grad():
            last = self.shown(self.end(noise)).clamp(0, 1)
        if options.tested == "files":
            fooled = fooled & (self.given.surrogates.judge(quantise(last))[1].max(0).values >= 0)
        return torch.where(spread(fooled, last), found, last)

    @torch.no_grad()
    def end(self, noise: Tensor) -> Tensor:
        """The latents [batch,channels,rows,columns] to which the way leads from ``noise``."""
        return denoise(self.given.backbone, self.trajectory, noise)[0]

    def shown(self, latents: Tensor) -> Tensor:
        """The images that ``latents`` at the end of the way show, near [0,1]."""
        decoded = self.given.backbone.decode(latents)
        return at_boundary(decoded if self.residual is None else decoded + self.residual)

    def resized(self, images: Tensor) -> Tensor:
        """``images`` as the surrogates receive them."""
        if self.options.resize == "own":
            return images
        size: tuple[int, int] = self.given.surrogates.classifiers[0].preprocessing.size  # type: ignore[attr-defined]
        return interpolate(images, size, mode="nearest")

    def _fools(self, images: Tensor, margins: Tensor) -> Tensor:
        """Whether ``images`` fool every surrogate, bool [batch]; ``margins`` [models,batch] are
        theirs without rounding."""
        if self.options.tested == "files":
            margins = self.given.surrogates.judge(quantise(images))[1]
        return margins.max(0).values < 0

    def _away(self, images: Tensor) -> Tensor:
        """Gradient of the distance of ``images`` from the clean ones, both as the surrogates'
        networks receive them, its mean over the surrogates.

        It vanishes for an image that has not moved: there it would be that of rounding errors.
        """
        networks: Sequence[Classifier] = self.given.surrogates.classifiers  # type: ignore[assignment]
        clean, points = self.given.images, images.detach().requires_grad_()
        with torch.enable_grad():
            distances = [
                image_norms(each.preprocessing(self.resized(points)) - each.preprocessing(clean)) for each in networks
            ]
            (gradient,) = torch.autograd.grad(torch.stack(distances).mean(0).sum(), points)
        moved = (images - clean).abs().amax((1, 2, 3)) > _STILL
        return torch.where(spread(moved, gradient), gradient, 0.0)


@torch.no_grad()
def prepare_mapped(options: ACA, given: EditInput) -> Mapped:
    """ACA with ``options`` on ``given``: the images mapped to noise."""
    backbone, images = given.backbone, given.images
    schedule = backbone.noise_schedule(options.schedule_steps, options.schedule_steps)
    text, empty = backbone.embed(given.prompts), backbone.embed([""] * len(images))
    stored = invert(backbone, schedule, backbone.encode(images), text, "aligned")
    reconstruction = _NULL_TEXT if options.reconstruction == "null_text" else Offset()
    with torch.enable_grad():
        trajectory = reconstruction(backbone, schedule, stored, text, empty, options.guidance)
    made = Mapped(given, options, trajectory, None)
    if not options.residual:
        return made
    return replace(made, residual=images - backbone.decode(made.end(trajectory.start)))
