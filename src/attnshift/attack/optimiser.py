"""AdamW on the latents, as an immutable record whose state can follow the images that stay in the batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["AdamW"]

_BETAS = (0.9, 0.999)
_EPS = 1e-8


@dataclass(frozen=True)
class AdamW:
    """Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), algorithm 2, as torch's AdamW.

    torch's own changes its state in place and belongs to one tensor; this one can be kept in a snapshot and compacted.
    """

    learning_rate: float
    weight_decay: float
    mean: Tensor
    square: Tensor
    steps: int = 0

    @classmethod
    def start(cls, latents: Tensor, learning_rate: float, weight_decay: float) -> AdamW:
        return cls(learning_rate, weight_decay, torch.zeros_like(latents), torch.zeros_like(latents))

    def step(self, latents: Tensor, gradient: Tensor) -> tuple[Tensor, AdamW]:
        """The moved latents and the optimiser after the step; both inputs stay as they are."""
        steps = self.steps + 1
        mean = torch.lerp(self.mean, gradient, 1 - _BETAS[0])
        square = _BETAS[1] * self.square + (1 - _BETAS[1]) * gradient * gradient
        correction = (1 - _BETAS[1] ** steps) ** 0.5
        move = mean / (square.sqrt() / correction + _EPS) * (self.learning_rate / (1 - _BETAS[0] ** steps))
        moved = latents * (1 - self.learning_rate * self.weight_decay) - move
        return moved, replace(self, mean=mean, square=square, steps=steps)

    def rows(self, keep: Tensor) -> AdamW:
        return replace(self, mean=self.mean[keep], square=self.square[keep])
