"""Terms that keep the picture's structure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from attnshift.losses.selection import Selection
from attnshift.tables import STRICT
from attnshift.types import Observation, Site

__all__ = ["SelfAttention"]


def _everything() -> Selection:
    return Selection(places=("down", "mid", "up"), grid="all")


@dataclass(frozen=True)
class SelfAttention:
    """Distance between the attacked and the clean self-attention.

    ``mse`` with reduction ``sum`` is the baseline's (Chen et al., DiffAttack, TPAMI 2024): the mean square
    over heads and entries, summed over sites and steps. ``mean`` divides by the number of sites and steps.
    """

    __pydantic_config__ = STRICT
    distance: Literal["mse"] = "mse"
    reduction: Literal["sum", "mean"] = "sum"
    select: Selection = field(default_factory=_everything)

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return self.select.sites(available, "self", latent_side)

    def __call__(self, observation: Observation) -> Tensor:
        attacked, clean = observation.adversarial.attention, observation.clean.attention
        distances = [
            (attacked[site][step].float() - clean[site][step].float()).square().flatten(1).mean(1)
            for site in self.sites(attacked, observation.adversarial.latents.shape[-1])
            for step in self.select.window(attacked[site])
        ]
        total = torch.stack(distances).sum(0)
        return total if self.reduction == "sum" else total / len(distances)
