"""A metric."""

from __future__ import annotations

from torch import Tensor


def mean_change(reference: Tensor, candidate: Tensor) -> Tensor:
    """Mean absolute change of a value in [0,1], [batch]; 0 for equal images."""
    return (candidate - reference).abs().mean((1, 2, 3))
