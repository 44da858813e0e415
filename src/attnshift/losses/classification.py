"""Losses of logits [batch,classes] and the attack's goals, one value per image; lower is more
adversarial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from attnshift.errors import RecipeError
from attnshift.registry import STRICT
from attnshift.types import Goals

__all__ = ["CrossEntropy", "Distribution", "Margin", "margins"]


def margins(logits: Float[Tensor, "batch classes"], goals: Goals) -> Float[Tensor, "batch"]:
    """Logits by which a classifier still resists; negative where the attack has reached its goal.

    Untargeted: the true logit minus the highest other one. Targeted: the highest other logit minus
    the target's.
    """
    chosen = goals.labels if goals.targets is None else goals.targets
    own = logits.gather(1, chosen[:, None])[:, 0]
    others = logits.scatter(1, chosen[:, None], -torch.inf).max(1).values
    return own - others if goals.targets is None else others - own


@dataclass(frozen=True)
class CrossEntropy:
    """Minus the cross-entropy of the true class, or the cross-entropy of the target.

    Untargeted it is unbounded below and goes on pushing when the classifier is fooled.
    """

    __pydantic_config__ = STRICT

    @property
    def reads_interference(self) -> bool:
        return False

    def __call__(self, logits: Float[Tensor, "batch classes"], goals: Goals) -> Float[Tensor, "batch"]:
        if goals.targets is None:
            return -torch.nn.functional.cross_entropy(logits.float(), goals.labels, reduction="none")
        return torch.nn.functional.cross_entropy(logits.float(), goals.targets, reduction="none")


@dataclass(frozen=True)
class Margin:
    """relu(margin + kappa): Carlini and Wagner (S&P 2017), f_6. Zero, without gradient, once fooled
    by ``kappa``.

    ``dlr`` divides the margin by the spread of the highest logits, so that logits of different
    networks compare: f_(1) - f_(3), or with a target f_(1) - (f_(3) + f_(4)) / 2 (Croce and Hein,
    ICML 2020, eq. 7 and 8); it needs at least three classes, or four. A small kappa is stealthy and
    transfers badly.
    """

    __pydantic_config__ = STRICT
    kappa: float = 0.0
    scale: Literal["logit", "dlr"] = "logit"
    """Unit of the margin: logits, or the spread of the highest logits (``dlr``)."""

    @property
    def reads_interference(self) -> bool:
        return False

    def __call__(self, logits: Float[Tensor, "batch classes"], goals: Goals) -> Float[Tensor, "batch"]:
        margin = margins(logits.float(), goals)
        if self.scale == "dlr":
            needed, kind = (3, "an untargeted") if goals.targets is None else (4, "a targeted")
            if logits.shape[1] < needed:
                raise RecipeError(
                    f"classification loss 'margin' with scale 'dlr' needs {needed} classes in {kind} attack, "
                    f"and there are {logits.shape[1]}; use scale 'logit'"
                )
            highest = logits.float().topk(needed, dim=1).values
            margin = margin / (highest[:, 0] - highest[:, 2:].mean(1)).clamp(min=1e-6)
        return torch.relu(margin + self.kappa)


@dataclass(frozen=True)
class Distribution:
    """Distance of the predicted distribution to one that says nothing, or something else:
    softmax(f) to ``goal``.

    ``goal``: ``uniform``, for untargeted attacks, over all classes but the true one with
    ``spare_true``; ``peaked``, which gives ``peak`` to the target class, or without one to the
    interference phrase's, and the rest evenly to the others. ``distance``: ``js`` in [0,1] (bits),
    or ``ce``, the goal's cross-entropy less its own entropy, so that 0 is the best value.
    """

    __pydantic_config__ = STRICT
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "peak": ("goal", "peaked"),
        "spare_true": ("goal", "uniform"),
    }
    distance: Literal["js", "ce"] = "js"
    goal: Literal["uniform", "peaked"] = "uniform"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.9
    spare_true: bool = False

    @property
    def reads_interference(self) -> bool:
        return self.goal == "peaked"

    def __call__(self, logits: Float[Tensor, "batch classes"], goals: Goals) -> Float[Tensor, "batch"]:
        logits = logits.float()
        wanted, log_predicted = self._goal(logits, goals), logits.log_softmax(1)
        if self.distance == "ce":
            return (torch.special.xlogy(wanted, wanted) - wanted * log_predicted).sum(1)
        log_wanted = wanted.clamp(min=1e-12).log()
        log_middle = torch.logaddexp(log_predicted, log_wanted) - math.log(2)
        towards = (log_predicted.exp() * (log_predicted - log_middle)).sum(1)
        back = (torch.special.xlogy(wanted, wanted) - wanted * log_middle).sum(1)
        return (towards + back) / (2 * math.log(2))

    def _goal(self, logits: Float[Tensor, "batch classes"], goals: Goals) -> Float[Tensor, "batch classes"]:
        classes = logits.shape[1]
        if self.goal == "uniform":
            if goals.targets is not None:
                raise RecipeError(
                    "classification loss 'distribution' with goal 'uniform' aims at no class; "
                    "use goal 'peaked' in a targeted attack"
                )
            even = torch.full_like(logits, 1 / (classes - self.spare_true)).detach()
            return even.scatter(1, goals.labels[:, None], 0.0) if self.spare_true else even
        targets = goals.interference if goals.targets is None else goals.targets
        if targets is None or bool((targets < 0).any()):
            raise RecipeError(
                "classification loss 'distribution' with goal 'peaked' needs a class to peak at: a target, or an "
                "interference phrase that is one of the surrogates' classes"
            )
        rest = torch.full_like(logits, (1 - self.peak) / (classes - 1)).detach()
        return rest.scatter(1, targets[:, None], self.peak)
