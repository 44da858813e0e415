"""Maximin expected flatness: sign steps along the gradients of random neighbours. Options are read
without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from attnshift.baselines.kinds import Radius
from attnshift.baselines.pixel import MIFGSM

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.types import RandomKey

__all__ = ["MEF"]

Factor = Annotated[float, Field(ge=0, le=10)]


@dataclass(frozen=True)
class MEF(MIFGSM):
    """Maximin expected flatness: Qiu et al. (T-IFS 2026, arXiv 2405.16181), by their code.

    With the gradients g_k of the cross-entropy at ``neighbours`` points around the iterate x,

        q_k = x + U(-spread epsilon, spread epsilon) + shift epsilon G_k
        g_k = gradient at q_k
        G_k <- g_k / mean|g_k| - persistence G_k

    from G_k = 0, MI-FGSM steps along the sum of the g_k. Each neighbour has a G_k of its own
    through all iterations. U is drawn anew for each image, iteration and neighbour. An image costs
    ``steps`` times ``neighbours`` gradients of each surrogate, 400 by default.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    step_size: Radius | None = 1.6 / 255
    decay: Annotated[float, Field(ge=0)] = 0.5
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 20
    spread: Factor = 2.0
    """Radius of the neighbourhood, in ``epsilon``."""
    shift: Factor = 0.15
    """Length of the shift along G_k, in ``epsilon``."""
    persistence: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the old G_k that is taken off the new one."""
    inverted: bool = False
    """Subtract the shift, as its name in the paper says: inverted gradient.

    Both public codes add it."""

    def _directions(self, surrogates: Surrogates, key: RandomKey, radii: Tensor) -> Callable[[int, Tensor], Tensor]:
        import torch

        from attnshift.baselines.sign_steps import FusedDirection, of_size_one, uniform_offsets

        ways = [FusedDirection(self._rule(), surrogates) for _ in range(self.neighbours)]
        # Of the loss that is lowered: minus G_k.
        memories = [torch.zeros_like(radii)] * self.neighbours
        shift = (self.shift if self.inverted else -self.shift) * radii

        def direction(iteration: int, points: Tensor) -> Tensor:
            total = torch.zeros_like(points)
            for at, way in enumerate(ways):
                drawn = uniform_offsets(points, key, iteration, "neighbour", at)
                gradient = way(iteration, points + self.spread * radii * drawn + shift * memories[at])
                memories[at] = of_size_one(gradient) - self.persistence * memories[at]
                total = total + gradient
            return total

        return direction
