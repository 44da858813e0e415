"""Figures of attention rows: their values, and their gradients at the scores.

Each is a ``Reduction`` of ``tiles``. A and B are the softmax of the scores of two branches, and D
the difference of their scores. Where both branches nearly coincide, a difference of two logarithms
is mostly rounding. So a divergence is formed of D less its mean under A, key by key, before
anything is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnshift.attention.tiles import Scores

__all__ = ["columns", "entropy", "jensen_shannon", "kl", "log_sum_exp", "squared_difference", "symmetric_kl"]

_CAP = 60.0
"""Highest exponent of a ratio B / A that is taken as it is. Up to there, a probability that fp32
cannot hold adds nothing."""

_Rows = Float[Tensor, "maps rows"]
_Tile = Float[Tensor, "maps rows keys"]


def log_sum_exp(scores: Scores, valued: bool, needed: Sequence[bool]) -> Iterator[Tensor]:
    if valued:
        yield scores[0].logsumexp(-1)
    if any(needed):
        yield scores[0].softmax(-1)


def entropy(scores: Scores, valued: bool, needed: Sequence[bool]) -> Iterator[Tensor]:
    below = scores[0].sub_(scores[0].amax(-1, keepdim=True))
    probabilities = below.softmax(-1)
    if valued:
        yield (below.logsumexp(-1) - _mean(probabilities, below)[..., 0]).clamp(min=0)
    if any(needed):
        yield _through_softmax(probabilities, below).neg_()


def kl(scores: Scores, valued: bool, needed: Sequence[bool]) -> Iterator[Tensor]:
    first, second = scores
    probabilities, difference = first.softmax(-1), first - second
    if valued:
        yield _divergence(first, second, probabilities, difference)
    if needed[0]:
        yield _through_softmax(probabilities, difference)
    if needed[1]:
        yield second.softmax(-1).sub_(probabilities)


def _divergence(first: _Tile, second: _Tile, probabilities: _Tile, difference: _Tile) -> _Rows:
    """log of the mean under A of exp(x), with x = mean of D - D.

    The mean of x is 0, so that of exp(x) - 1 is that of exp(x) - 1 - x, which is nowhere negative.
    """
    mean = _mean(probabilities, difference)
    exponents = mean - difference
    beyond = exponents.amax(-1) > _CAP
    if not _possible(beyond):
        return (exponents.expm1().sub_(exponents).mul_(probabilities)).sum(-1).log1p_().clamp_(min=0)
    near = (probabilities * (exponents.clamp(max=_CAP).expm1_().sub_(exponents))).sum(-1).log1p_()
    far = mean[..., 0] + second.logsumexp(-1) - first.logsumexp(-1)
    return torch.where(beyond, far, near).clamp_(min=0)


def symmetric_kl(scores: Scores, valued: bool, needed: Sequence[bool]) -> Iterator[Tensor]:
    """Sum of (A - B) (D - mean of D)."""
    probabilities, others, difference = scores[0].softmax(-1), scores[1].softmax(-1), scores[0].sub_(scores[1])
    apart = probabilities - others
    if valued:
        yield (difference - _mean(probabilities, difference)).mul_(apart).sum(-1).clamp_(min=0)
    if needed[0]:
        yield _through_softmax(probabilities, difference.clone() if needed[1] else difference).add_(apart)
    if needed[1]:
        yield _through_softmax(others, difference.neg_()).sub_(apart)


def squared_difference(scores: Scores, valued: bool, needed: Sequence[bool]) -> Iterator[Tensor]:
    probabilities, others = scores[0].softmax(-1), scores[1].softmax(-1)
    apart = probabilities - others
    if valued:
        yield apart.square().sum(-1)
    apart.mul_(2)
    if needed[0]:
        yield _through_softmax(probabilities, apart.clone() if needed[1] else apart)
    if needed[1]:
        yield _through_softmax(others, apart.neg_())


def jensen_shannon(scores: Scores, valued: bool, needed: Sequence[bool]) -> Iterator[Tensor]:
    first, second = scores[0].softmax(-1), scores[1].softmax(-1)
    if valued:
        there, back = _log_share(first, second).mul_(first), _log_share(second, first).mul_(second)
        yield (there.add_(back).sum(-1) / 2).clamp_(min=0)
    for one, other, wanted in zip((first, second), (second, first), needed, strict=True):
        if wanted:
            yield _through_softmax(one, _log_share(one, other)).div_(2)


def columns(
    scores: Scores,
    valued: bool,
    needed: Sequence[bool],
    tokens: Int[Tensor, "maps tokens"],
    cotangent: Float[Tensor, "maps rows tokens"] | None = None,
) -> Iterator[Tensor]:
    probabilities = scores[0].softmax(-1)
    found = probabilities.gather(-1, _in_each_row(tokens, probabilities))
    if valued:
        yield found
    if any(needed) and cotangent is not None:
        pulls = found * cotangent
        # A product with one-hot rows: scattering has no fixed order on a GPU.
        places = (tokens[..., None] == torch.arange(probabilities.shape[-1], device=tokens.device)).to(pulls.dtype)
        yield torch.bmm(pulls, places) - probabilities * pulls.sum(-1, keepdim=True)


def _in_each_row(tokens: Int[Tensor, "maps tokens"], scores: _Tile) -> Int[Tensor, "maps rows tokens"]:
    return tokens[:, None].expand(-1, scores.shape[1], -1)


def _mean(probabilities: _Tile, values: _Tile) -> Float[Tensor, "maps rows 1"]:
    return (probabilities * values).sum(-1, keepdim=True)


def _through_softmax(probabilities: _Tile, slopes: _Tile) -> _Tile:
    """Gradient at the scores of what has the gradient ``slopes`` at their ``probabilities``;
    overwrites ``slopes``."""
    return slopes.sub_(_mean(probabilities, slopes)).mul_(probabilities)


def _log_share(one: _Tile, other: _Tile) -> _Tile:
    """Logarithm of ``one`` over the mean of both; a finite number where ``one`` is 0."""
    tiny = torch.finfo(one.dtype).tiny
    both = (one + other).clamp_(min=tiny)
    excess = (one - other).div_(both)
    return torch.where(excess.abs() < 0.5, excess.log1p(), (2 * one).div_(both).clamp_(min=tiny).log_())


def _possible(rows: Bool[Tensor, "maps rows"]) -> bool:
    """False where it is known, without waiting for a GPU, that no row is True."""
    known = type(rows) is Tensor and rows.device.type == "cpu"
    return not known or bool(rows.any())
