"""A change of pixels beside that of the latents: x' = render(z) + r, both under one budget."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attnshift.attack.optimiser import Descent, Optimiser, Paced
from attnshift.batching import batch_record, constant, per_image, spread
from attnshift.losses.schedules import schedule_of
from attnshift.metrics.contrast import local_contrast
from attnshift.recipes.schema import OptimiserSection, PixelSection

__all__ = ["PixelChange", "pixel_share"]


@batch_record
class PixelChange:
    """Values [batch,3,height,width] that are added to what the latents show, and their optimiser.

    A step has the root mean square that the recipe states, along the gradient of all that reads
    the image: classification, a budget's force and the terms on images. No value exceeds its bound
    in ``bounds`` [batch,1,height,width], and what the images and the change make stays in [0,1].

    Where ``masked``, bounds follow the contrast around a pixel, and so do steps: the change is
    optimised as a share of its bounds.
    """

    values: Tensor = per_image()
    images: Tensor = per_image()
    optimiser: Optimiser = per_image()
    bounds: Tensor = per_image()
    masked: bool = constant()

    @classmethod
    def start(cls, section: PixelSection, pace: OptimiserSection, images: Tensor) -> PixelChange | None:
        """No change yet of ``images`` [batch,3,height,width] in [0,1]; None where the recipe moves
        latents alone. Steps follow the schedule of the latents' optimiser."""
        if not section.learning_rate:
            return None
        steps = Descent(section.learning_rate, 0.0, signed=False)
        unit = spread(images.new_ones(len(images)), images)
        paced = Paced(steps, schedule_of(pace.schedule, "optimiser"), pace.iterations, unit)
        bounds = torch.full_like(images[:, :1], section.radius)
        if section.contrast:
            bounds = (section.contrast * local_contrast(images)).clamp(max=section.radius)
        return cls(torch.zeros_like(images), images, paced, bounds, section.contrast > 0)

    def step(self, gradient: Tensor) -> PixelChange:
        """The change after a step against ``gradient`` [batch,3,height,width]."""
        moved, optimiser = self.optimiser.step(self.values, gradient * self.bounds**2 if self.masked else gradient)
        return replace(self.at(moved), optimiser=optimiser)

    def scaled(self, factors: Tensor) -> PixelChange:
        """``factors`` [batch] times the change."""
        return self.at(spread(factors, self.values) * self.values)

    def at(self, values: Tensor) -> PixelChange:
        """The change of ``values`` [batch,3,height,width], brought within its bounds."""
        within = values.clamp(-self.bounds, self.bounds)
        return replace(self, values=(self.images + within).clamp(0, 1) - self.images)


def pixel_share(images: Tensor, changed: Tensor, pixels: Tensor) -> Tensor:
    """Share [batch] of ``pixels`` in the change from ``images`` to ``changed``, all
    [batch,3,height,width]: of the squares of both parts, 0 to 1."""
    own, other = (each.square().flatten(1).sum(1) for each in (pixels, changed - images - pixels))
    return own / (own + other).clamp(min=1e-30)
