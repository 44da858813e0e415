"""The loss of attacks that lower margins without an end."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from attnshift.ensemble.surrogates import Surrogates
from attnshift.losses.classification import margins
from attnshift.types import Goals

__all__ = ["on_margins"]


class _Margin:
    """The margin itself, in logits: it goes on pulling when a classifier is fooled.

    Logits are [batch,classes], the loss [batch].
    """

    reads_interference = False

    def __call__(self, logits: Tensor, goals: Goals) -> Tensor:
        return margins(logits.float(), goals)


def on_margins(surrogates: Surrogates) -> Surrogates:
    """The same surrogates, on which the attack lowers the margin."""
    return replace(surrogates, criterion=_Margin())
