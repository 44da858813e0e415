"""The term that keeps the picture's structure: the self-attention between its positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attnshift.attention.projections import queries_and_keys
from attnshift.attention.reductions import (
    jensen_shannon_rows,
    kl_rows,
    squared_difference_rows,
    symmetric_kl_rows,
)
from attnshift.attention.selection import EVERYWHERE, Selection
from attnshift.errors import RecipeError
from attnshift.registry import STRICT
from attnshift.sizes import Size, size_of
from attnshift.types import Observation, Place, Site

__all__ = ["SelfAttention"]

_Distance = Literal["js", "kl", "symmetric", "mse"]
_SMALL = 256
"""Positions of the largest site of which all steps are compared in one call: there the calls cost
more than the copies."""
_KEPT = 1024
"""Positions of the largest site whose gradient is formed together with the value and kept."""
_PLACE_SHARES: dict[Place, float] = {"up": 1.0, "mid": 0.5, "down": 0.25}


@dataclass(frozen=True)
class SelfAttention:
    """Distance between the attacked and the clean self-attention, row by row; the mean over heads
    and query rows.

    ``distance``: ``js``, the Jensen-Shannon divergence in [0,1] (in bits); ``kl``, of the attacked
    from the clean rows, in nats; ``symmetric``, that plus the one of the clean from the attacked
    rows; ``mse``, the mean over keys. Whole maps are never computed. ``reduction`` over sites and
    steps: ``sum``, with ``mse`` DiffAttack's term (Chen et al., DiffAttack, TPAMI 2024); ``mean``;
    ``layered``, the mean over steps weighted over sites by their place (up 1, mid 0.5, down 0.25)
    times (side / largest side)^gamma, so that fine and late layers, which hold texture, count most;
    a side is the root of a grid's positions. Sites with more than ``rows`` query rows are estimated
    from so many, drawn again in every iteration and the same on both sides, which saves time; 0
    reads all. On joint attention rows are those of the image's part alone.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = False
    reads_mask: ClassVar[bool] = False
    holds: ClassVar[bool] = True
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"gamma": ("reduction", "layered")}
    distance: _Distance = "js"
    reduction: Literal["layered", "mean", "sum"] = "layered"
    gamma: float = 1.0
    """Power of a site's relative side in its weight, with ``layered``."""
    rows: Annotated[int, Field(ge=0)] = 0
    select: Selection = EVERYWHERE

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        chosen = self.select.sites(available, "self", latents)
        if self.select.share == "whole" and any(each.joint for each in chosen):
            raise RecipeError(
                "self_attention compares distributions, which shares of whole rows are not where image and text have "
                "one softmax; set select.share to 'part'"
            )
        return tuple(site.projected(self.rows) for site in chosen)

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        attacked = observation.adversarial.attention
        sites = self.sites(attacked, size_of(observation.adversarial.latents))
        total = torch.zeros(len(observation.tokens), device=observation.adversarial.latents.device)
        for site, weight in zip(sites, self._weights(sites), strict=True):
            values = self._distances(observation, site, self.select.window(attacked[site]))
            total = total + weight * (values.sum(0) if self.reduction == "sum" else values.mean(0))
        return total

    def _weights(self, sites: tuple[Site, ...]) -> list[float]:
        if self.reduction == "sum":
            return [1.0] * len(sites)
        if self.reduction == "mean":
            return [1 / len(sites)] * len(sites)
        largest = max(math.sqrt(site.positions) for site in sites)
        shares = [_PLACE_SHARES[site.place] * (math.sqrt(site.positions) / largest) ** self.gamma for site in sites]
        return [share / sum(shares) for share in shares]

    def _distances(self, observation: Observation, site: Site, steps: range) -> Float[Tensor, "steps batch"]:
        """Mean over heads and rows of one site at each step."""
        together = len(steps) if site.positions <= _SMALL else 1
        parts = []
        for at in range(0, len(steps), together):
            attacked, clean = (
                queries_and_keys(site, _joined([branch.attention[site][step] for step in steps[at : at + together]]))
                for branch in (observation.adversarial, observation.clean)
            )
            per_head = _mean_distance(self.distance, *attacked, *clean)
            values = (per_head * self.select.head_weights(per_head, 1)).sum(1)
            parts.append(values.view(-1, len(observation.tokens)))
        return torch.cat(parts)


def _joined(steps: list[Tensor]) -> Tensor:
    """Steps one after the other in one batch; a single one is not copied."""
    return steps[0] if len(steps) == 1 else torch.cat(steps)


def _mean_distance(distance: _Distance, *branches: Tensor) -> Float[Tensor, "batch heads"]:
    rows, keys = branches[0].shape[2], branches[1].shape[2]
    figure = _FIGURES[distance]
    found = figure(*branches, mean=True) if rows <= _KEPT else figure(*branches).mean(2)
    return found / {"js": math.log(2), "mse": keys}.get(distance, 1)


_FIGURES: Mapping[str, Callable[..., Tensor]] = {
    "js": jensen_shannon_rows,
    "kl": kl_rows,
    "symmetric": symmetric_kl_rows,
    "mse": squared_difference_rows,
}
