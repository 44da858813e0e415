"""Exact figures of attention rows, in memory that grows with queries and keys and not with their
product.

Attention A = softmax(q k^T / sqrt(width)) is given by its queries q [batch,heads,rows,width] and
keys k [batch,heads,keys,width]. The letters a and b name two branches whose rows are compared.
Inputs may have any floating-point precision and any strides. Sums are formed in fp32, or in float64
where an input is float64, also under autocast. Gradients go back to every input that needs one.

>>> queries, keys = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 8, 4)
>>> entropy_rows(queries, keys).exp().round()
tensor([[[8., 8.]]])
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnshift.attention import figures
from attnshift.attention.tiles import Reduction, mean_rows, reduce_rows

__all__ = [
    "entropy_rows",
    "jensen_shannon_rows",
    "kl_rows",
    "log_sum_exp_rows",
    "phrase_columns",
    "squared_difference_rows",
    "symmetric_kl_rows",
]

_Queries = Float[Tensor, "batch heads rows _"]
_Keys = Float[Tensor, "batch heads keys _"]
_Rows = Float[Tensor, "batch heads rows"]
_RowsOrMean = Float[Tensor, "batch heads *rows"]


def kl_rows(q_a: _Queries, k_a: _Keys, q_b: _Queries, k_b: _Keys, *, mean: bool = False) -> _RowsOrMean:
    """Kullback-Leibler divergence of A from B, row by row, in nats: sum of A log(A / B).

    It is 0 where both branches are the same, and nowhere negative. With ``mean`` it is the mean
    over the rows (nan of none), whose gradient is formed together with it. That takes two thirds
    of the time, and keeps as much as the queries and keys that need a gradient. ``ValueError`` for
    inputs that do not fit together.
    """
    return _compared(figures.kl, mean, q_a, k_a, q_b, k_b)


def symmetric_kl_rows(q_a: _Queries, k_a: _Keys, q_b: _Queries, k_b: _Keys, *, mean: bool = False) -> _RowsOrMean:
    """Divergence of A from B plus that of B from A, row by row, in nats; arguments as in
    ``kl_rows`` (Jeffreys 1946)."""
    return _compared(figures.symmetric_kl, mean, q_a, k_a, q_b, k_b)


def jensen_shannon_rows(q_a: _Queries, k_a: _Keys, q_b: _Queries, k_b: _Keys, *, mean: bool = False) -> _RowsOrMean:
    """Jensen-Shannon divergence, row by row, in nats, from 0 to log 2; arguments as in ``kl_rows``
    (Lin 1991)."""
    return _compared(figures.jensen_shannon, mean, q_a, k_a, q_b, k_b)


def squared_difference_rows(q_a: _Queries, k_a: _Keys, q_b: _Queries, k_b: _Keys, *, mean: bool = False) -> _RowsOrMean:
    """Sum of (A - B)^2 over the keys, row by row; arguments as in ``kl_rows``."""
    return _compared(figures.squared_difference, mean, q_a, k_a, q_b, k_b)


def entropy_rows(queries: _Queries, keys: _Keys) -> _Rows:
    """Shannon entropy of each row, in nats, from 0 to log(keys); ``ValueError`` as in
    ``kl_rows``."""
    _check(queries, keys, "queries", "keys")
    return reduce_rows(figures.entropy, queries, keys)


def log_sum_exp_rows(queries: _Queries, keys: _Keys) -> _Rows:
    """log of the sum of exp(scores) of each row: the logarithm of what the softmax divides by;
    ``ValueError`` as in ``kl_rows``."""
    _check(queries, keys, "queries", "keys")
    return reduce_rows(figures.log_sum_exp, queries, keys)


def phrase_columns(
    queries: _Queries, keys: _Keys, tokens: Sequence[int] | Int[Tensor, "tokens"] | Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch heads rows tokens"]:
    """Attention of each row to some of its keys: the columns ``tokens`` of the map, in their order.

    ``tokens`` count from 0. They are the same for all images, or [batch,tokens] image by image. The
    softmax is over all keys, so that a column is what it is in the whole map. ``ValueError`` as in
    ``kl_rows``, and for tokens that are no keys.
    """
    _check(queries, keys, "queries", "keys")
    return reduce_rows(figures.columns, queries, keys, tokens=_positions(tokens, queries, keys))


def _compared(reduction: Reduction, mean: bool, *branches: Tensor) -> _RowsOrMean:
    _check_pair(*branches)
    return (mean_rows if mean else reduce_rows)(reduction, *branches)


def _check_pair(q_a: Tensor, k_a: Tensor, q_b: Tensor, k_b: Tensor) -> None:
    _check(q_a, k_a, "q_a", "k_a")
    _check(q_b, k_b, "q_b", "k_b")
    if q_a.device != q_b.device:
        raise ValueError(f"q_a is on {q_a.device} and q_b on {q_b.device}; put both branches on one device")
    for one, other, name in ((q_a, q_b, "q"), (k_a, k_b, "k")):
        if one.shape[:3] != other.shape[:3]:
            what = "batch, heads and rows" if name == "q" else "batch, heads and keys"
            raise ValueError(
                f"{name}_a is {list(one.shape)} and {name}_b {list(other.shape)}; "
                f"rows are compared key by key, so {what} must be the same"
            )


def _check(queries: Tensor, keys: Tensor, q: str, k: str) -> None:
    for name, each, third in ((q, queries, "rows"), (k, keys, "keys")):
        if not isinstance(each, Tensor) or not each.is_floating_point():
            kind = each.dtype if isinstance(each, Tensor) else type(each).__name__
            raise ValueError(f"{name} is {kind}; expected a tensor of real floating-point numbers")
        if each.ndim != 4:
            raise ValueError(f"{name} is {list(each.shape)}; expected [batch, heads, {third}, width]")
    shapes = f"{q} is {list(queries.shape)} and {k} {list(keys.shape)}"
    if queries.shape[:2] != keys.shape[:2]:
        raise ValueError(f"{shapes}; batch and heads must be the same")
    if queries.shape[3] != keys.shape[3] or not queries.shape[3]:
        raise ValueError(f"{shapes}; the width must be the same, and at least 1")
    if not keys.shape[2]:
        raise ValueError(f"{shapes}; there must be a key to attend to")
    if queries.device != keys.device:
        raise ValueError(f"{q} is on {queries.device} and {k} on {keys.device}; put both on one device")


def _positions(tokens: Sequence[int] | Tensor, queries: Tensor, keys: Tensor) -> Int[Tensor, "batch tokens"]:
    """``tokens`` image by image. Those of a sequence are checked without a look at the device."""
    batch, count = len(keys), keys.shape[2]
    if isinstance(tokens, Tensor):
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise ValueError(f"tokens is {tokens.dtype}; expected whole numbers from 0 to {count - 1}")
        if tokens.ndim not in (1, 2) or (tokens.ndim == 2 and len(tokens) != batch):
            raise ValueError(f"tokens is {list(tokens.shape)}; expected [tokens] or [batch, tokens] with batch {batch}")
        ends = (int(tokens.min()), int(tokens.max())) if tokens.numel() else ()
    else:
        try:
            numbers = [operator.index(each) for each in tokens]
        except TypeError:
            raise ValueError(f"tokens is {tokens!r:.80}; expected whole numbers from 0 to {count - 1}") from None
        ends = (min(numbers), max(numbers)) if numbers else ()
        tokens = torch.tensor(numbers, dtype=torch.long)
    if ends and not 0 <= ends[0] <= ends[1] < count:
        raise ValueError(f"tokens go from {ends[0]} to {ends[1]}; the keys are 0 to {count - 1}")
    return tokens.to(queries.device, torch.long).expand(batch, -1)
