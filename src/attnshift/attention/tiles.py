"""Figures of attention rows and their gradients, computed tile by tile.

A *tile* is a block of query rows with all of their keys. Its scores exist while it is computed, and
are computed again for the gradient. So memory grows with queries and keys and not with their
product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Reduction", "Scores", "reduce_rows"]

_SCORES = {"cpu": 2**17, "cuda": 2**22}
"""Scores of a tile, so few that its tensors stay in the cache."""

Scores = list[Float[Tensor, "maps rows keys"]]
"""Scaled scores of a tile, of one branch or of two. A map is one head of one image."""


@dataclass(frozen=True)
class Reduction:
    """A figure of each attention row.

    ``value`` takes the scores of a tile, which it may overwrite, and returns [maps,rows].
    ``slopes`` takes the same and which branches need a gradient, and returns the gradient of the
    figure at the scores of these branches, in their order.

    A figure that is read at ``tokens`` [maps,tokens] gives [maps,rows,tokens]. Its functions take
    these further, and ``slopes`` also the cotangent, with which it returns the gradient.
    """

    value: Callable[..., Tensor]
    slopes: Callable[..., Iterator[Tensor]]


def reduce_rows(
    reduction: Reduction,
    *projections: Float[Tensor, "batch heads _ _"],
    tokens: Int[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch heads rows *rest"]:
    """The figure of each row, in float64 if an input is, else in fp32.

    ``projections`` are queries [batch,heads,rows,width] and keys [batch,heads,keys,width], of one
    branch or of two. The gradient cannot be differentiated again.
    """
    return _Reduce.apply(reduction, tokens, *projections)  # type: ignore[no-any-return]


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, reduction: Reduction, tokens: Tensor | None, *projections: Tensor) -> Tensor:
        ctx.reduction, ctx.tokens = reduction, tokens
        ctx.save_for_backward(*projections)
        tiles = _Tiles(projections, tokens)
        groups = [
            torch.cat([reduction.value(tiles.scores(maps, rows), *tiles.read_at(maps)) for rows in tiles.blocks], 1)
            for maps in tiles.groups
        ]
        return torch.cat(groups).unflatten(0, projections[0].shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        projections, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        tiles, cotangent = _Tiles(projections, ctx.tokens), cotangent.flatten(0, 1)
        gradients = tiles.zeros(needed)
        branches = [any(needed[at : at + 2]) for at in range(0, len(needed), 2)]
        for maps in tiles.groups:
            for rows in tiles.blocks:
                pull = cotangent[maps, rows].to(tiles.dtype)
                read = tiles.read_at(maps)
                given = (*read, pull) if read else ()
                slopes = ctx.reduction.slopes(tiles.scores(maps, rows), branches, *given)
                for branch in (at for at, wanted in enumerate(branches) if wanted):
                    tiles.add(gradients, branch, maps, rows, next(slopes), None if read else pull[..., None])
        found = (None if each is None else each.unflatten(0, projections[0].shape[:2]) for each in gradients)
        return None, None, *(
            each if each is None else each.to(like.dtype) for each, like in zip(found, projections, strict=True)
        )  # fmt: skip


class _Tiles:
    """Tiles of projections: ``groups`` of maps, and ``blocks`` of their rows."""

    def __init__(self, projections: Sequence[Tensor], tokens: Tensor | None):
        queries, keys = projections[:2]
        self.dtype = torch.float64 if any(each.dtype == torch.float64 for each in projections) else torch.float32
        self.scales = [each.shape[-1] ** -0.5 for each in projections[::2]]
        maps = [each.to(self.dtype).flatten(0, 1) for each in projections]
        self.queries = [each * scale for each, scale in zip(maps[::2], self.scales, strict=True)]
        self.keys = maps[1::2]
        self.tokens = None if tokens is None else tokens.repeat_interleave(queries.shape[1], 0)
        rows, size = queries.shape[2], _SCORES.get(queries.device.type, _SCORES["cpu"])
        self.groups = _slices(len(maps[0]), size // max(1, rows * keys.shape[2]))
        self.blocks = _slices(rows, size // keys.shape[2])

    def scores(self, maps: slice, rows: slice) -> Scores:
        with torch.autocast(self.keys[0].device.type, enabled=False):
            return [
                torch.bmm(queries[maps, rows], keys[maps].transpose(1, 2))
                for queries, keys in zip(self.queries, self.keys, strict=True)
            ]

    def read_at(self, maps: slice) -> tuple[Tensor, ...]:
        return () if self.tokens is None else (self.tokens[maps],)

    def zeros(self, needed: Sequence[bool]) -> list[Tensor | None]:
        """A gradient of 0 for each projection that needs one."""
        pairs = (each for pair in zip(self.queries, self.keys, strict=True) for each in pair)
        return [torch.zeros_like(each) if wanted else None for each, wanted in zip(pairs, needed, strict=True)]

    def add(
        self,
        gradients: Sequence[Tensor | None],
        branch: int,
        maps: slice,
        rows: slice,
        slope: Float[Tensor, "maps rows keys"],
        pull: Float[Tensor, "maps rows 1"] | None,
    ) -> None:
        """Add to the ``gradients`` of a branch what the ``slope`` of a tile gives, each row times
        its ``pull``."""
        of_queries, of_keys = gradients[2 * branch : 2 * branch + 2]
        factor = 1.0 if pull is None else pull
        with torch.autocast(slope.device.type, enabled=False):
            if of_queries is not None:
                of_queries[maps, rows] = torch.bmm(slope, self.keys[branch][maps]) * factor * self.scales[branch]
            if of_keys is not None:
                of_keys[maps].baddbmm_(slope.transpose(1, 2), self.queries[branch][maps, rows] * factor)


def _slices(count: int, length: int) -> list[slice]:
    """Slices of ``count`` things, about equally long and at most ``length``; a length below 1
    counts as 1."""
    parts = -(-count // max(1, length)) or 1
    length = -(-count // parts) or 1
    return [slice(start, start + length) for start in range(0, max(1, count), length)]
