"""Sampled sites: the query rows that an iteration draws, and the attention of these rows."""

from __future__ import annotations

from dataclasses import replace

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnshift.randomness import generator
from attnshift.types import Branch, RandomKey, Site

__all__ = ["at_drawn_rows", "query_rows", "row_probabilities"]


def at_drawn_rows(branch: Branch, key: RandomKey) -> Branch:
    """``branch`` with the probabilities of the drawn rows, [batch,heads,sample,keys], at every
    sampled site."""
    attention = dict(branch.attention)
    for site, steps in attention.items():
        if site.sample:
            rows = query_rows(site, key).to(branch.latents.device)
            attention[site] = tuple(row_probabilities(each, rows) for each in steps)
    return replace(branch, attention=attention)


def query_rows(site: Site, key: RandomKey) -> Int[Tensor, "batch sample"]:
    """The query rows of ``site`` that an iteration reads; the same at all steps and in all
    branches."""
    drawn = [
        generator(key.seed, id, key.iteration, "query rows", site.layer).permutation(site.side**2) for id in key.ids
    ]
    return torch.from_numpy(numpy.stack(drawn)[:, : site.sample])


def row_probabilities(
    projected: Float[Tensor, "batch 2 heads queries width"], rows: Int[Tensor, "batch sample"]
) -> Float[Tensor, "batch heads sample queries"]:
    """Probabilities of a sampled site at the query ``rows`` of each image.

    ``projected`` are its scaled queries and its keys.
    """
    queries, keys = projected.unbind(1)
    at = rows[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3])
    return torch.matmul(queries.gather(2, at), keys.transpose(2, 3)).float().softmax(-1)
