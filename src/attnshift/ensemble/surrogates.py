"""The classifiers that the attack sees, with what it lowers on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.losses.classification import margins

__all__ = ["Criterion", "Surrogates"]

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Logits [batch,classes] and true labels [batch] -> loss [batch]."""


@dataclass(frozen=True)
class Surrogates:
    """``classifiers`` map images [batch,3,height,width] in [0,1] to logits [batch,classes]; labels [batch]."""

    classifiers: Sequence[Callable[[Tensor], Tensor]]
    criterion: Criterion
    labels: Tensor

    def gradients(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each model's gradient at the images [models,batch,3,height,width], losses and margins [models,batch]."""
        images = images.detach().requires_grad_()
        gradients, losses, kept = [], [], []
        with torch.enable_grad():
            for classifier in self.classifiers:
                logits = classifier(images)
                loss = self.criterion(logits, self.labels)
                (gradient,) = torch.autograd.grad(loss.sum(), images)
                gradients.append(gradient)
                losses.append(loss.detach())
                kept.append(margins(logits.detach(), self.labels))
        return torch.stack(gradients), torch.stack(losses), torch.stack(kept)

    @torch.no_grad()
    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and margins [models,batch], without gradients."""
        logits = [classifier(images) for classifier in self.classifiers]
        losses = [self.criterion(each, self.labels) for each in logits]
        return torch.stack(losses), torch.stack([margins(each, self.labels) for each in logits])

    def rows(self, keep: Tensor) -> Surrogates:
        return replace(self, labels=self.labels[keep])
