"""Sites that are read as queries and keys in place of maps: the columns of a phrase, and the query
rows that an iteration draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnshift.attention.reductions import phrase_columns
from attnshift.randomness import generator
from attnshift.types import Branch, MassShare, RandomKey, Site

__all__ = ["at_drawn_rows", "phrase_shares", "projections", "queries_and_keys", "query_rows"]


def projections(
    queries: Float[Tensor, "batch heads rows width"], *keys: Float[Tensor, "batch heads _ width"]
) -> Float[Tensor, "batch heads positions width"]:
    """Queries and behind them keys, as a branch holds them."""
    return torch.cat([queries, *keys], 2)


def queries_and_keys(
    site: Site, held: Float[Tensor, "batch heads positions width"]
) -> tuple[Float[Tensor, "batch heads rows width"], Float[Tensor, "batch heads keys width"]]:
    """The queries that terms see of a site, and its keys.

    All positions of cross-attention are queries. Joint attention to the text has the keys of the
    image first, and the text's behind them.
    """
    at = -site.positions if site.kind == "self" else site.positions
    return held[:, :, :at], held[:, :, at:]


def phrase_shares(
    site: Site,
    held: Float[Tensor, "batch heads positions width"],
    span: Sequence[int],
    share: MassShare,
    keys: int | None = None,
) -> Float[Tensor, "batch heads rows tokens"]:
    """Attention of each position of a cross-attention site to the tokens ``span``, as shares of
    what ``share`` says.

    ``keys`` is how many of the text's keys there are; those behind only fill up the batch. None
    takes all.
    """
    queries, there = queries_and_keys(site, held)
    text = site.positions if site.joint else 0
    if keys is not None:
        there = there[:, :, : text + keys]
    if share == "whole":
        return phrase_columns(queries, there, [text + token for token in span])
    return phrase_columns(queries, there[:, :, text:], span)


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
