"""A metric."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor


class MeanChange:
    """Mean absolute change of a value in [0,1], [batch]; 0 for equal images."""

    higher_is_better: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    def __call__(self, reference: Tensor, candidate: Tensor) -> Tensor:
        return (candidate - reference).abs().mean((1, 2, 3))


mean_change = MeanChange()
