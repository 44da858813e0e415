"""Figures of attention rows: their values, and their gradients at the scores.

A and B are the softmax of the scores of two branches, and D the difference of their scores. Where
both branches nearly coincide, a difference of two logarithms is mostly rounding. So a divergence is
formed of D less its mean under A, key by key, before anything is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnshift.attention.tiles import Reduction, Scores

__all__ = [
    "COLUMNS",
    "ENTROPY",
    "JENSEN_SHANNON",
    "KL",
    "LOG_SUM_EXP",
    "SQUARED_DIFFERENCE",
    "SYMMETRIC_KL",
]

_CAP = 60.0
"""Highest exponent of a ratio B / A that is taken as it is. Up to there, a probability that fp32
cannot hold adds nothing."""

_Rows = Float[Tensor, "maps rows"]
_Tile = Float[Tensor, "maps rows keys"]


def _log_sum_exp(scores: Scores) -> _Rows:
    return scores[0].logsumexp(-1)


def _log_sum_exp_slopes(scores: Scores, needed: Sequence[bool]) -> Iterator[_Tile]:
    yield scores[0].softmax(-1)


def _entropy(scores: Scores) -> _Rows:
    below = scores[0].sub_(scores[0].amax(-1, keepdim=True))
    return (below.logsumexp(-1) - _mean(below.softmax(-1), below)[..., 0]).clamp(min=0)


def _entropy_slopes(scores: Scores, needed: Sequence[bool]) -> Iterator[_Tile]:
    below = scores[0].sub_(scores[0].amax(-1, keepdim=True))
    yield _through_softmax(below.softmax(-1), below).neg_()


def _kl(scores: Scores) -> _Rows:
    """log of the mean under A of exp(x), with x = mean of D - D.

    The mean of x is 0, so that of exp(x) - 1 is that of exp(x) - 1 - x, which is nowhere negative.
    """
    first, second = scores
    probabilities, difference = first.softmax(-1), first - second
    mean = _mean(probabilities, difference)
    exponents = difference.neg_().add_(mean)
    beyond = exponents.amax(-1) > _CAP
    if not _possible(beyond):
        return (probabilities.mul_(exponents.expm1().sub_(exponents))).sum(-1).log1p_().clamp_(min=0)
    near = (probabilities * (exponents.clamp(max=_CAP).expm1_().sub_(exponents))).sum(-1).log1p_()
    far = mean[..., 0] + second.logsumexp(-1) - first.logsumexp(-1)
    return torch.where(beyond, far, near).clamp_(min=0)


def _kl_slopes(scores: Scores, needed: Sequence[bool]) -> Iterator[_Tile]:
    first, second = scores
    probabilities = first.softmax(-1)
    if needed[0]:
        yield _through_softmax(probabilities, first.sub_(second))
    if needed[1]:
        yield second.softmax(-1).sub_(probabilities)


def _symmetric_kl(scores: Scores) -> _Rows:
    """Sum of (A - B) (D - mean of D)."""
    probabilities, others, difference = scores[0].softmax(-1), scores[1].softmax(-1), scores[0].sub_(scores[1])
    difference.sub_(_mean(probabilities, difference))
    return probabilities.sub_(others).mul_(difference).sum(-1).clamp_(min=0)


def _symmetric_kl_slopes(scores: Scores, needed: Sequence[bool]) -> Iterator[_Tile]:
    probabilities, others, difference = scores[0].softmax(-1), scores[1].softmax(-1), scores[0].sub_(scores[1])
    if needed[0]:
        yield _through_softmax(probabilities, difference.clone()).add_(probabilities).sub_(others)
    if needed[1]:
        yield _through_softmax(others, difference.neg_()).add_(others).sub_(probabilities)


def _squared_difference(scores: Scores) -> _Rows:
    return scores[0].softmax(-1).sub_(scores[1].softmax(-1)).square_().sum(-1)


def _squared_difference_slopes(scores: Scores, needed: Sequence[bool]) -> Iterator[_Tile]:
    probabilities, others = scores[0].softmax(-1), scores[1].softmax(-1)
    doubled = (probabilities - others).mul_(2)
    if needed[0]:
        yield _through_softmax(probabilities, doubled.clone())
    if needed[1]:
        yield _through_softmax(others, doubled.neg_())


def _jensen_shannon(scores: Scores) -> _Rows:
    probabilities, others = scores[0].softmax(-1), scores[1].softmax(-1)
    there, back = _log_share(probabilities, others), _log_share(others, probabilities)
    return (probabilities.mul_(there).add_(others.mul_(back)).sum(-1) / 2).clamp_(min=0)


def _jensen_shannon_slopes(scores: Scores, needed: Sequence[bool]) -> Iterator[_Tile]:
    probabilities, others = scores[0].softmax(-1), scores[1].softmax(-1)
    if needed[0]:
        yield _through_softmax(probabilities, _log_share(probabilities, others)).div_(2)
    if needed[1]:
        yield _through_softmax(others, _log_share(others, probabilities)).div_(2)


def _columns(scores: Scores, tokens: Int[Tensor, "maps tokens"]) -> Float[Tensor, "maps rows tokens"]:
    return scores[0].softmax(-1).gather(-1, _in_each_row(tokens, scores[0]))


def _columns_slopes(
    scores: Scores,
    needed: Sequence[bool],
    tokens: Int[Tensor, "maps tokens"],
    cotangent: Float[Tensor, "maps rows tokens"],
) -> Iterator[_Tile]:
    probabilities = scores[0].softmax(-1)
    pulls = probabilities.gather(-1, _in_each_row(tokens, probabilities)) * cotangent
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


LOG_SUM_EXP = Reduction(_log_sum_exp, _log_sum_exp_slopes)
ENTROPY = Reduction(_entropy, _entropy_slopes)
KL = Reduction(_kl, _kl_slopes)
SYMMETRIC_KL = Reduction(_symmetric_kl, _symmetric_kl_slopes)
SQUARED_DIFFERENCE = Reduction(_squared_difference, _squared_difference_slopes)
JENSEN_SHANNON = Reduction(_jensen_shannon, _jensen_shannon_slopes)
COLUMNS = Reduction(_columns, _columns_slopes)
