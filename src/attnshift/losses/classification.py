"""Terms on a classifier's logits: [batch,classes] and true labels [batch] -> [batch]; lower is more adversarial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnshift.tables import STRICT

__all__ = ["CrossEntropy", "Margin", "margins"]


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """True logit minus the highest other one, [batch]; negative where the classifier is fooled."""
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return true - others.max(1).values


@dataclass(frozen=True)
class CrossEntropy:
    """Minus the cross-entropy of the true class. Unbounded below: it goes on pushing when the classifier is fooled."""

    __pydantic_config__ = STRICT

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


@dataclass(frozen=True)
class Margin:
    """relu(margin + kappa): Carlini and Wagner (S&P 2017), f_6. Zero, without gradient, once fooled by ``kappa``.

    ``dlr`` divides the margin by the spread of the three highest logits (Croce and Hein, ICML 2020), so that
    logits of different networks compare; it needs at least three classes.
    """

    __pydantic_config__ = STRICT
    kappa: float = 0.0
    scale: Literal["logit", "dlr"] = "logit"

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        margin = margins(logits.float(), labels)
        if self.scale == "dlr":
            highest = logits.float().topk(3, dim=1).values
            margin = margin / (highest[:, 0] - highest[:, 2]).clamp(min=1e-6)
        return torch.relu(margin + self.kappa)
