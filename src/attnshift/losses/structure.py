"""The term that keeps the picture's structure: the self-attention between its positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attnshift.attention.selection import EVERYWHERE, Selection
from attnshift.registry import STRICT
from attnshift.types import Observation, Place, Site

__all__ = ["SelfAttention"]

_PLACE_SHARES: dict[Place, float] = {"up": 1.0, "mid": 0.5, "down": 0.25}
_TINY = 1e-12


@dataclass(frozen=True)
class SelfAttention:
    """Distance between the attacked and the clean self-attention, row by row; the mean over heads
    and query rows.

    ``distance``: ``js``, the Jensen-Shannon divergence in [0,1] (in bits); ``kl``, of the attacked
    from the clean rows, in nats; ``mse``. ``reduction`` over sites and steps: ``sum``, with ``mse``
    DiffAttack's term (Chen et al., DiffAttack, TPAMI 2024); ``mean``; ``layered``, the mean over
    steps weighted over sites by their place (up 1, mid 0.5, down 0.25) times (side / largest
    side)^gamma, so that fine and late layers, which hold texture, count most. Sites with more than
    ``rows`` query rows are estimated from so many, drawn again in every iteration and the same on
    both sides, and their whole maps are never computed; 0 reads all.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = False
    reads_mask: ClassVar[bool] = False
    holds: ClassVar[bool] = True
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"gamma": ("reduction", "layered")}
    distance: Literal["js", "kl", "mse"] = "js"
    reduction: Literal["layered", "mean", "sum"] = "layered"
    gamma: float = 1.0
    rows: Annotated[int, Field(ge=0)] = 0
    select: Selection = EVERYWHERE

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return tuple(site.sampled(self.rows) for site in self.select.sites(available, "self", latent_side))

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        attacked = observation.adversarial.attention
        sites = self.sites(attacked, observation.adversarial.latents.shape[-1])
        total = torch.zeros(len(observation.tokens), device=observation.adversarial.latents.device)
        for site, weight in zip(sites, self._weights(sites), strict=True):
            steps = [self._distance(observation, site, step) for step in self.select.window(attacked[site])]
            values = torch.stack(steps)
            total = total + weight * (values.sum(0) if self.reduction == "sum" else values.mean(0))
        return total

    def _weights(self, sites: tuple[Site, ...]) -> list[float]:
        if self.reduction == "sum":
            return [1.0] * len(sites)
        if self.reduction == "mean":
            return [1 / len(sites)] * len(sites)
        largest = max(site.side for site in sites)
        shares = [_PLACE_SHARES[site.place] * (site.side / largest) ** self.gamma for site in sites]
        return [share / sum(shares) for share in shares]

    def _distance(self, observation: Observation, site: Site, step: int) -> Float[Tensor, "batch"]:
        """Mean over heads and rows of one site at one step."""
        attacked, clean = (
            branch.attention[site][step].float() for branch in (observation.adversarial, observation.clean)
        )
        per_row = _DISTANCES[self.distance](attacked, clean)
        return (per_row * self.select.head_weights(per_row, 1)).sum(1).mean(1)


def _js(left: Float[Tensor, "*rows keys"], right: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows"]:
    middle = (left + right) / 2
    return (_kl(left, middle) + _kl(right, middle)) / (2 * math.log(2))


def _kl(left: Float[Tensor, "*rows keys"], right: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows"]:
    return (left * (left.clamp(min=_TINY).log() - right.clamp(min=_TINY).log())).sum(-1)


def _mse(left: Float[Tensor, "*rows keys"], right: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows"]:
    return torch.nn.functional.mse_loss(left, right, reduction="none").mean(-1)


_DISTANCES = {"js": _js, "kl": _kl, "mse": _mse}
