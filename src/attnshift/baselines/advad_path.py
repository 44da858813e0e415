"""The path of AdvAD: a diffusion path of known noise, from which the noise has been taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil

import numpy
import torch
from torch import Tensor

from attnshift.baselines.advad import LEVELS
from attnshift.batching import spread
from attnshift.diffusion.ddim import linear_levels
from attnshift.types import Goals

__all__ = ["LogOthers", "climb", "noise_ratios"]

Slopes = Callable[[int, Tensor], Tensor]
"""A step's number and its points [batch,3,height,width] -> gradients there of what the attack
raises."""


class LogOthers:
    """-log(1 - p_y) of the true class y, or minus the log-probability of the target.

    Logits are [batch,classes], the loss [batch]. log(1 - p_y) is the logsumexp of the other logits
    less that of all, which stays finite where p_y rounds to 1.
    """

    reads_interference = False

    def __call__(self, logits: Tensor, goals: Goals) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if goals.targets is not None:
            return torch.nn.functional.cross_entropy(logits, goals.targets, reduction="none")
        others = logits.scatter(1, goals.labels[:, None], -torch.inf)
        return logits.logsumexp(1) - others.logsumexp(1)


def noise_ratios(steps: int) -> tuple[float, ...]:
    """r_t = sqrt(1 - a_t) / sqrt(a_t) of ``steps`` noise levels, the noisiest first, and 0 at the
    end.

    a_t is the cumulative alpha of 1000 levels with linear betas.
    """
    taken = numpy.array(linear_levels(LEVELS)[:: ceil(LEVELS / steps)][::-1])
    return (*(((1 - taken) / taken) ** 0.5).tolist(), 0.0)


def climb(images: Tensor, radii: Tensor, ratios: Sequence[float], slopes: Slopes) -> Tensor:
    """End of the path from ``images`` [batch,3,height,width], not clamped to [0,1].

    Each value moves by no more than its image's own of ``radii`` [batch]. The published recursion,
    in values X from -1 to 1 and with the noise e_0, is

        e_t = e_0 - clip(sqrt(1 - a_t) grad log(1 - p_y), -b, b),  b = 2 radius / r_T

    between DDIM steps. All of e_0 cancels, and what is left is

        d_t = clip(r_t grad log(1 - p_y) at X + s + r_t d_{t+1}, -b, b)
        s <- s + (r_t - r_{t-1}) d_t

    from d = s = 0. The result is X + s (Prop. 1 of the paper has this sum). In values from 0 to 1
    the gradient is twice as long and the step half as long.
    """
    bounds = spread(radii, images) / ratios[0]
    moved, step = torch.zeros_like(images), torch.zeros_like(images)
    for step_number, (ratio, below) in enumerate(pairwise(ratios)):
        slope = slopes(step_number, images + moved + ratio * step)
        step = (ratio / 4 * slope).clamp(-bounds, bounds)
        moved = moved + (ratio - below) * step
    return images + moved
