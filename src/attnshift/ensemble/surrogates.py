"""The classifiers that the attack sees, with what it lowers on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from attnshift.losses.classification import margins
from attnshift.types import Goals

__all__ = ["Criterion", "Surrogates"]


@runtime_checkable
class Criterion(Protocol):
    """A penalty on logits [batch,classes], given what the attack is after: one fp32 value per image, [batch]."""

    @property
    def reads_interference(self) -> bool: ...

    def __call__(self, logits: Tensor, goals: Goals) -> Tensor: ...


@dataclass(frozen=True)
class Surrogates:
    """``classifiers`` map images [batch,3,height,width] in [0,1] to logits [batch,classes]."""

    classifiers: Sequence[Callable[[Tensor], Tensor]]
    criterion: Criterion
    goals: Goals

    def gradients(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each model's gradient at the images [models,batch,3,height,width], losses and margins [models,batch]."""
        images = images.detach().requires_grad_()
        gradients, losses, kept = [], [], []
        with torch.enable_grad():
            for classifier in self.classifiers:
                logits = classifier(images)
                loss = self.criterion(logits, self.goals)
                (gradient,) = torch.autograd.grad(loss.sum(), images)
                gradients.append(gradient)
                losses.append(loss.detach())
                kept.append(margins(logits.detach(), self.goals))
        return torch.stack(gradients), torch.stack(losses), torch.stack(kept)

    @torch.no_grad()
    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and margins [models,batch], without gradients."""
        logits = [classifier(images) for classifier in self.classifiers]
        losses = [self.criterion(each, self.goals) for each in logits]
        return torch.stack(losses), torch.stack([margins(each, self.goals) for each in logits])

    def rows(self, keep: Tensor) -> Surrogates:
        return replace(self, goals=self.goals.rows(keep))
