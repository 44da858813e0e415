"""Maps of phrases: the attention that a denoiser's queries pay to the tokens of a phrase.

A phrase's *token maps* a_j are the attention that each position pays to its token j; its *phrase
map* a_c is their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnshift.attention.projections import phrase_shares
from attnshift.attention.selection import Selection
from attnshift.sizes import Size, size_of
from attnshift.types import AttentionMaps, MassShare, Observation, Site, TokenSpan

__all__ = [
    "grid_weights",
    "of_share",
    "phrase_map",
    "relative_entropy",
    "resized",
    "shares_over_positions",
    "site_maps",
    "token_maps",
]

_EPS = 1e-8


def site_maps(
    attention: AttentionMaps,
    site: Site,
    select: Selection,
    span: TokenSpan,
    image: int,
    keys: int | None = None,
) -> Float[Tensor, "steps heads tokens rows columns"]:
    """Attention of each head of one site to the tokens of a phrase.

    Where the site is read as queries and keys, no whole map is formed. ``keys`` is how many of the
    text's keys the image has, where its batch filled up the view "probe"; None where it has all.
    """
    held = [attention[site][step][image] for step in select.window(attention[site])]
    if site.form == "map":
        columns = torch.stack([of_share(each, site, select.share)[..., list(span)].float() for each in held])
    else:
        columns = phrase_shares(site, torch.stack(held), span, select.share, keys)
    return columns.transpose(2, 3).unflatten(3, site.grid)


def of_share(maps: Float[Tensor, "*rows keys"], site: Site, share: MassShare) -> Float[Tensor, "*rows keys"]:
    """``maps`` of ``site`` as shares of what they are asked to be shares of; as they are where the
    site is not joint: it has one part."""
    if share == "whole" or not site.joint:
        return maps
    return maps.float() / maps.float().sum(-1, keepdim=True).clamp(min=_EPS)


def resized(maps: Float[Tensor, "*maps _ _"], grid: Size) -> Float[Tensor, "*maps {grid.rows} {grid.columns}"]:
    """Maps on another grid."""
    if size_of(maps) == grid:
        return maps
    flat = maps.flatten(0, -3)[None]
    return torch.nn.functional.interpolate(flat, grid, mode="bilinear", antialias=True).view(*maps.shape[:-2], *grid)


def token_maps(
    attention: AttentionMaps,
    sites: Sequence[Site],
    select: Selection,
    span: TokenSpan,
    image: int,
    keys: int | None = None,
) -> Float[Tensor, "tokens rows columns"]:
    """Token maps of one image: the mean over sites, heads and steps.

    Sites with smaller grids are resized to the largest one. ``keys`` as in ``site_maps``.
    """
    grid = max(site.grid for site in sites)
    maps = []
    for site in sites:
        heads = site_maps(attention, site, select, span, image, keys)
        maps.append(resized((heads * select.head_weights(heads, 1)).sum(1).mean(0), grid))
    return torch.stack(maps).mean(0)


def phrase_map(
    attention: AttentionMaps,
    sites: Sequence[Site],
    select: Selection,
    span: TokenSpan,
    image: int,
    keys: int | None = None,
) -> Float[Tensor, "rows columns"]:
    """Attention of a whole phrase for one image: the sum of its token maps. Arguments as in
    ``token_maps``."""
    return token_maps(attention, sites, select, span, image, keys).sum(0)


def grid_weights(observation: Observation, image: int, grid: Size) -> Float[Tensor, "{grid.rows} {grid.columns}"]:
    """Weight of each position of a grid for one image,
    in (0,1]: the mean of its pixels' weights."""
    weights = observation.weights[image].float()
    return torch.nn.functional.adaptive_avg_pool2d(weights, grid)[0]


def relative_entropy(maps: Float[Tensor, "*maps rows columns"], temperature: float = 1.0) -> Float[Tensor, "*maps"]:
    """Entropy of maps scaled to sum to 1, relative to log(rows * columns); 1 for a map of zeros.

    Their ``temperature`` is that of a softmax over positions of the maps' logarithms.
    """
    positions = maps.shape[-1] * maps.shape[-2]
    share = shares_over_positions(maps).flatten(-2)
    if temperature != 1:
        share = (share.clamp(min=1e-30).log() / temperature).softmax(-1)
    return -(share * share.clamp(min=1e-12).log()).sum(-1) / math.log(max(positions, 2))


def shares_over_positions(maps: Float[Tensor, "*maps rows columns"]) -> Float[Tensor, "*maps rows columns"]:
    """Maps scaled to sum to 1 over positions; an empty one becomes uniform."""
    positions = maps.shape[-1] * maps.shape[-2]
    return (maps + _EPS / positions) / (maps.sum((-2, -1), keepdim=True) + _EPS)
