"""Images mapped to noise and back, the steps of an attack on that noise, and ACA's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

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
from attnshift.sizes import size_of
from attnshift.types import Fused

if TYPE_CHECKING:
    from attnshift.baselines.aca import ACA
    from attnshift.baselines.mapped import MappedBaseline

__all__ = ["Content", "Look", "Mapped", "at_boundary", "prepare_content", "unit_l1"]

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


@dataclass(frozen=True)
class Look:
    """An iterate: its images [batch,3,height,width] in [0,1], what the fusion rule makes of them,
    and the gradient of the penalty that counts as the start's."""

    shown: Tensor
    fused: Fused
    gradient: Tensor


@batch_record
class Mapped(Edit):
    """The way from noise to the images, and the attack on where it starts.

    ``residual`` [batch,3,height,width] is what the way loses of each image, None where it is not
    added.
    """

    options: MappedBaseline = constant()
    trajectory: Trajectory = per_image()
    residual: Tensor | None = per_image()

    @property
    @abstractmethod
    def tested(self) -> Literal["files", "floats", "none"]:
        """The images of which the last that fools all surrogates is kept; ``none``: the one that
        they see last is the result."""

    @abstractmethod
    def end(self, noise: Tensor, strengths: Tensor) -> Tensor:
        """The latents [batch,channels,rows,columns] to which the way leads from ``noise``."""

    @abstractmethod
    def shown(self, latents: Tensor) -> Tensor:
        """The images that ``latents`` at the end of the way show, near [0,1]."""

    @abstractmethod
    def look(self, noise: Tensor, strengths: Tensor, iteration: int, state: Tensor | None) -> Look:
        """The iterate that starts at ``noise``; ``state`` is the fusion rule's."""

    @torch.no_grad()
    def regaining(self) -> Self:
        """The same attack, whose control arm is the image again."""
        start = self.trajectory.start
        decoded = self.given.backbone.decode(self.end(start, start.new_zeros(len(start))))
        return replace(self, residual=self.given.images - decoded)

    @torch.no_grad()
    def floor(self) -> Tensor:
        start = self.trajectory.start
        return self.shown(self.end(start, start.new_zeros(len(start)))).clamp(0, 1)

    def __call__(self, strengths: Tensor) -> Tensor:
        options, start = self.options, self.trajectory.start
        radius = spread(strengths, start) * options.epsilon
        step_size = spread(strengths, start) * options.pace
        noise, momentum, state = start, torch.zeros_like(start), None
        found, fooled = self.given.images, torch.zeros_like(strengths, dtype=torch.bool)
        for iteration in range(options.steps):
            look = self.look(noise, strengths, iteration, state)
            state, now = look.fused.state, self._kept(look)
            found, fooled = torch.where(spread(now, found), look.shown, found), fooled | now
            momentum = options.decay * momentum + unit_l1(look.gradient)
            noise = start + (noise - start - step_size * momentum.sign()).clamp(-radius, radius)
        if self.tested == "none":
            return found
        with torch.no_grad():
            last = self.shown(self.end(noise, strengths)).clamp(0, 1)
        if self.tested == "files":
            fooled = fooled & (self.given.surrogates.judge(quantise(last))[1].max(0).values >= 0)
        return torch.where(spread(fooled, last), found, last)

    def _kept(self, look: Look) -> Tensor:
        """Whether each image of ``look`` is kept until a later one is, bool [batch]."""
        margins = look.fused.margins
        if self.tested == "none":
            return torch.ones_like(margins[0], dtype=torch.bool)
        if self.tested == "files":
            margins = self.given.surrogates.judge(quantise(look.shown))[1]
        return margins.max(0).values < 0


def unit_l1(gradient: Tensor) -> Tensor:
    """``gradient`` [batch,...] with an absolute sum of 1 for each image; zeros stay zeros."""
    return gradient / spread(gradient.flatten(1).abs().sum(1).clamp(min=1e-30), gradient)


@batch_record
class Content(Mapped):
    """ACA on prepared images."""

    options: ACA = constant()

    @property
    def tested(self) -> Literal["files", "floats"]:
        return self.options.tested

    @torch.no_grad()
    def end(self, noise: Tensor, strengths: Tensor) -> Tensor:
        return denoise(self.given.backbone, self.trajectory, noise)[0]

    def shown(self, latents: Tensor) -> Tensor:
        return at_boundary(self.given.decoded(latents, self.residual))

    def look(self, noise: Tensor, strengths: Tensor, iteration: int, state: Tensor | None) -> Look:
        end = self.end(noise, strengths).requires_grad_()
        with torch.enable_grad():
            shown = self.shown(end)
        seen = shown.detach().clamp(0, 1)
        surrogates = replace(self.given.surrogates.at(iteration), show=self.resized)
        fused = self.options.rule()(surrogates, seen, state)
        weighted = fused.direction + self.options.nearness * self._away(seen)
        return Look(seen, fused, torch.autograd.grad(shown, end, weighted)[0])

    def resized(self, images: Tensor) -> Tensor:
        """``images`` as the surrogates receive them."""
        if self.options.resize == "own":
            return images
        size: tuple[int, int] = self.given.surrogates.classifiers[0].preprocessing.size  # type: ignore[attr-defined]
        return interpolate(images, size, mode="nearest")

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
def prepare_content(options: ACA, given: EditInput) -> Content:
    """ACA with ``options`` on ``given``: the images mapped to noise."""
    backbone, images = given.backbone, given.images
    schedule = backbone.noise_schedule(options.schedule_steps, options.schedule_steps, size_of(images))
    text, empty = backbone.embed(given.prompts), backbone.embed([""] * len(images))
    stored = invert(backbone, schedule, backbone.encode(images), text, "aligned")
    reconstruction = _NULL_TEXT if options.reconstruction == "null_text" else Offset()
    with torch.enable_grad():
        trajectory = reconstruction(backbone, schedule, stored, text, empty, options.guidance)
    made = Content(given, options, trajectory, None)
    return made.regaining() if options.residual else made
