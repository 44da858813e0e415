"""Figures of attention rows and their gradients, computed tile by tile.

A *tile* is a block of query rows with all of their keys. Its scores exist while it is computed, and
are computed again for the gradient. So memory grows with queries and keys and not with their
product. Of the mean over rows the gradient is formed together with the value and kept, which is as
large as the queries and keys that need it, and takes two thirds of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Reduction", "Scores", "mean_rows", "reduce_rows"]

_SCORES = {"cpu": 2**17, "cuda": 2**22}
"""Scores of a tile, so few that its tensors stay in the cache."""

_NONE = (False, False)
Scores = list[Float[Tensor, "maps rows keys"]]
"""Scaled scores of a tile, of one branch or of two. A map is one head of one image."""


Reduction = Callable[..., Iterator[Tensor]]
"""A figure of each attention row.

It takes the scores of a tile, which it may overwrite, whether its value is wanted, and which
branches need a gradient. It yields the value [maps,rows], if that is wanted, and then the gradient
of the figure at the scores of these branches, in their order.

A figure that is read at ``tokens`` [maps,tokens] gives [maps,rows,tokens]. It takes these further,
and for the gradient the cotangent, with which it yields the gradient.
"""


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


def mean_rows(reduction: Reduction, *projections: Float[Tensor, "batch heads _ _"]) -> Float[Tensor, "batch heads"]:
    """The mean of the figure over the rows of each map; precision and gradient as in
    ``reduce_rows``."""
    return _Mean.apply(reduction, *projections)  # type: ignore[no-any-return]


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, reduction: Reduction, tokens: Tensor | None, *projections: Tensor) -> Tensor:
        ctx.reduction, ctx.tokens = reduction, tokens
        ctx.save_for_backward(*projections)
        tiles = _Tiles(projections, tokens)
        groups = [
            torch.cat(
                [next(reduction(tiles.scores(maps, rows), True, _NONE, *tiles.read_at(maps))) for rows in tiles.blocks],
                1,
            )
            for maps in tiles.groups
        ]
        return torch.cat(groups).unflatten(0, projections[0].shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        projections, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        tiles, cotangent = _Tiles(projections, ctx.tokens), cotangent.flatten(0, 1)
        gradients, branches = tiles.zeros(needed), _branches(needed)
        for maps in tiles.groups:
            for rows in tiles.blocks:
                pull = cotangent[maps, rows].to(tiles.dtype)
                read = tiles.read_at(maps)
                given = (*read, pull) if read else ()
                slopes = ctx.reduction(tiles.scores(maps, rows), False, branches, *given)
                tiles.add(gradients, maps, rows, slopes, 1.0 if read else pull[..., None])
        return None, None, *_as_given(gradients, projections)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, reduction: Reduction, *projections: Tensor) -> Tensor:
        tiles, needed = _Tiles(projections, None), ctx.needs_input_grad[1:]
        gradients, branches = tiles.zeros(needed), _branches(needed)
        rows_in_all = projections[0].shape[2]
        share = 1 / rows_in_all if rows_in_all else math.nan
        means = []
        for maps in tiles.groups:
            total = tiles.queries[0].new_zeros(tiles.queries[0][maps].shape[0])
            for rows in tiles.blocks:
                found = reduction(tiles.scores(maps, rows), True, branches)
                total += next(found).sum(1) * share
                tiles.add(gradients, maps, rows, found, share)
            means.append(total)
        ctx.needed = tuple(each is not None for each in gradients)
        ctx.save_for_backward(*(each for each in _as_given(gradients, projections) if each is not None))
        return torch.cat(means).unflatten(0, projections[0].shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        kept = iter(ctx.saved_tensors)
        pull = cotangent[..., None, None]
        return None, *(next(kept) * pull if wanted else None for wanted in ctx.needed)


def _branches(needed: Sequence[bool]) -> list[bool]:
    return [any(needed[at : at + 2]) for at in range(0, len(needed), 2)]


def _as_given(gradients: Sequence[Tensor | None], projections: Sequence[Tensor]) -> Iterator[Tensor | None]:
    """The gradients in the form and precision of their projections."""
    for each, like in zip(gradients, projections, strict=True):
        yield None if each is None else each.unflatten(0, like.shape[:2]).to(like.dtype)


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
        maps: slice,
        rows: slice,
        slopes: Iterator[Float[Tensor, "maps rows keys"]],
        pull: Float[Tensor, "maps rows 1"] | float,
    ) -> None:
        """Add to the ``gradients`` what the ``slopes`` of a tile give, one for each branch that
        needs a gradient, each row times its ``pull``."""
        for branch, (of_queries, of_keys) in enumerate(zip(gradients[::2], gradients[1::2], strict=True)):
            if of_queries is None and of_keys is None:
                continue
            slope = next(slopes)
            with torch.autocast(slope.device.type, enabled=False):
                if of_queries is not None:
                    of_queries[maps, rows] = torch.bmm(slope, self.keys[branch][maps]) * pull * self.scales[branch]
                if of_keys is not None:
                    of_keys[maps].baddbmm_(slope.transpose(1, 2), self.queries[branch][maps, rows] * pull)


def _slices(count: int, length: int) -> list[slice]:
    """Slices of ``count`` things, about equally long and at most ``length``; a length below 1
    counts as 1."""
    parts = -(-count // max(1, length)) or 1
    length = -(-count // parts) or 1
    return [slice(start, start + length) for start in range(0, max(1, count), length)]
