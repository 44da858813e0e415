"""Optimisers of the latents, as immutable records whose state follows the images that stay in the
batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, Self

import torch
from torch import Tensor

from attnshift.batching import batch_record, constant, per_image, spread
from attnshift.losses.schedules import Schedule, schedule_of
from attnshift.recipes.schema import OptimiserSection

__all__ = ["AdamW", "Descent", "Optimiser", "Paced", "start"]

_BETAS = (0.9, 0.999)
_EPS = 1e-8


class Optimiser(Protocol):
    """A batch record that moves the latents."""

    def step(self, latents: Tensor, gradient: Tensor) -> tuple[Tensor, Self]:
        """The moved latents and the optimiser after the step; both inputs stay as they are."""
        ...


def start(section: OptimiserSection, latents: Tensor) -> Optimiser:
    """The optimiser that a recipe names, before its first step."""
    if section.method == "adamw":
        made: Optimiser = AdamW.start(latents, section.learning_rate, section.weight_decay)
    else:
        made = Descent(section.learning_rate, section.weight_decay, signed=section.method == "sign")
    if not (section.relative or section.schedule):
        return made
    pace = schedule_of(section.schedule, "optimiser")
    unit = spread(latents.flatten(1).std(1), latents) if section.relative else None
    return Paced(made, pace, section.iterations, unit)


@batch_record
class AdamW:
    """Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), algorithm 2, as
    torch's AdamW.

    torch's own changes its state in place and belongs to one tensor; this one can be kept in a
    snapshot and compacted.
    """

    learning_rate: float = constant()
    weight_decay: float = constant()
    mean: Tensor = per_image()
    square: Tensor = per_image()
    steps: int = constant(default=0)

    @classmethod
    def start(cls, latents: Tensor, learning_rate: float, weight_decay: float) -> AdamW:
        return cls(learning_rate, weight_decay, torch.zeros_like(latents), torch.zeros_like(latents))

    def step(self, latents: Tensor, gradient: Tensor) -> tuple[Tensor, AdamW]:
        steps = self.steps + 1
        mean = torch.lerp(self.mean, gradient, 1 - _BETAS[0])
        square = _BETAS[1] * self.square + (1 - _BETAS[1]) * gradient * gradient
        correction = (1 - _BETAS[1] ** steps) ** 0.5
        move = mean / (square.sqrt() / correction + _EPS) * (self.learning_rate / (1 - _BETAS[0] ** steps))
        moved = latents * (1 - self.learning_rate * self.weight_decay) - move
        return moved, replace(self, mean=mean, square=square, steps=steps)


@batch_record
class Descent:
    """Steps along the gradient, or along its sign, with decoupled weight decay; momentum is the
    ensemble's.

    The gradient's norm is that of the weighted terms: its ``learning_rate`` does not compare with
    AdamW's, whose steps have about the size of the learning rate, like those of the sign.
    """

    learning_rate: float = constant()
    weight_decay: float = constant()
    signed: bool = constant()

    def step(self, latents: Tensor, gradient: Tensor) -> tuple[Tensor, Descent]:
        move = gradient.sign() if self.signed else gradient
        return latents * (1 - self.learning_rate * self.weight_decay) - self.learning_rate * move, self


@batch_record
class Paced:
    """Steps of another optimiser whose length follows a schedule and, with ``unit``, the scale of
    the latents.

    ``unit`` [batch,1,...] is the standard deviation of each image's start latents. The optimiser
    then sees latents of standard deviation 1, and gradients whose root mean square is 1: neither
    the scale of a latent space nor that of the losses changes a step.
    """

    optimiser: Optimiser = per_image()
    pace: Schedule = constant()
    iterations: int = constant()
    unit: Tensor | None = per_image(default=None)
    steps: int = constant(default=0)

    def step(self, latents: Tensor, gradient: Tensor) -> tuple[Tensor, Paced]:
        steps = self.steps + 1
        if self.unit is None:
            moved, optimiser = self.optimiser.step(latents, gradient)
        else:
            size = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-30).view_as(self.unit)
            moved, optimiser = self.optimiser.step(latents / self.unit, gradient / size)
            moved = moved * self.unit
        paced = torch.lerp(latents, moved, self.pace(steps / self.iterations))
        return paced, replace(self, optimiser=optimiser, steps=steps)
