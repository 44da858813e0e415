"""Sites that are read as queries and keys in place of maps, and the query rows that an iteration
draws of them."""

from __future__ import annotations

from dataclasses import replace

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnshift.randomness import generator
from attnshift.types import Branch, RandomKey, Site

__all__ = ["at_drawn_rows", "projections", "queries_and_keys", "query_rows"]


def projections(
    queries: Float[Tensor, "batch heads rows width"], keys: Float[Tensor, "batch heads keys width"]
) -> Float[Tensor, "batch heads positions width"]:
    """Queries and behind them keys, as a branch holds them."""
    return torch.cat([queries, keys], 2)


def queries_and_keys(
    site: Site, held: Float[Tensor, "batch heads positions width"]
) -> tuple[Float[Tensor, "batch heads rows width"], Float[Tensor, "batch heads keys width"]]:
    """The queries that terms see of a self-attention site, and its keys."""
    return held[:, :, : -site.positions], held[:, :, -site.positions :]


def at_drawn_rows(branch: Branch, key: RandomKey) -> Branch:
    """``branch`` with the queries of the drawn rows alone, and all keys, at every sampled site."""
    attention = dict(branch.attention)
    for site, steps in attention.items():
        if site.sample:
            rows = query_rows(site, key).to(branch.latents.device)
            attention[site] = tuple(_at_rows(site, each, rows) for each in steps)
    return replace(branch, attention=attention)


def query_rows(site: Site, key: RandomKey) -> Int[Tensor, "batch sample"]:
    """The query rows of ``site`` that an iteration reads; the same at all steps and in all
    branches."""
    drawn = [
        generator(key.seed, id, key.iteration, "query rows", site.layer).permutation(site.positions) for id in key.ids
    ]
    return torch.from_numpy(numpy.stack(drawn)[:, : site.sample])


def _at_rows(site: Site, held: Tensor, rows: Int[Tensor, "batch sample"]) -> Tensor:
    queries, keys = queries_and_keys(site, held)
    at = rows[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3])
    return projections(queries.gather(2, at), keys)
