"""Terms on cross-attention: what the denoiser's words look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnshift.losses.selection import Selection
from attnshift.tables import STRICT
from attnshift.types import AttentionMaps, Observation, Site, TokenSpan

__all__ = ["Variance", "phrase_map", "token_maps"]


def token_maps(attention: AttentionMaps, selection: Selection, span: TokenSpan, image: int, latent_side: int) -> Tensor:
    """Per-token maps a_j of one image, [tokens, side, side]: the mean over the selected sites, heads and steps.

    Sites with smaller grids are resized to the largest one.
    """
    sites = selection.sites(attention, "cross", latent_side)
    side = max(site.side for site in sites)
    maps = []
    for site in sites:
        steps = [attention[site][step][image] for step in selection.window(attention[site])]
        mean = torch.stack([probabilities[:, :, list(span)].float().mean(0) for probabilities in steps]).mean(0)
        grid = mean.T.unflatten(1, (site.side, site.side))
        if site.side != side:
            grid = torch.nn.functional.interpolate(grid[None], (side, side), mode="bilinear", antialias=True)[0]
        maps.append(grid)
    return torch.stack(maps).mean(0)


def phrase_map(attention: AttentionMaps, selection: Selection, span: TokenSpan, image: int, latent_side: int) -> Tensor:
    """Attention of a whole phrase for one image, [side, side]: the sum of its token maps."""
    return token_maps(attention, selection, span, image, latent_side).sum(0)


@dataclass(frozen=True)
class Variance:
    """Variance of the true class's token maps over positions and tokens; lowering it flattens the attention.

    The baseline's term (Chen et al., DiffAttack, TPAMI 2024), with the unbiased estimate that its code uses.
    """

    __pydantic_config__ = STRICT
    select: Selection = field(default_factory=Selection)

    def sites(self, available: Iterable[Site], latent_side: int) -> tuple[Site, ...]:
        return self.select.sites(available, "cross", latent_side)

    def __call__(self, observation: Observation) -> Tensor:
        branch = observation.adversarial
        maps = (
            token_maps(branch.attention, self.select, span, image, branch.latents.shape[-1])
            for image, span in enumerate(observation.tokens)
        )
        return torch.stack([each.var() for each in maps])
