"""L2T: operations of torchattack on the image, drawn by probabilities that the attack learns."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attnshift.baselines.external.networks import SpectrumSimulation
from attnshift.baselines.sign_steps import sign_steps

__all__ = ["CentreCrops", "LearnedTransforms", "operations"]

Operation = Callable[[Tensor], Tensor]
"""Images [n,3,height,width] -> images [copies * n,3,height,width]."""

_CHAIN = 2
"""Operations in a row."""
_SPECTRUM_NOISE = 16 / 255
"""Standard deviation of the noise in torchattack's spectrum operations."""
_SEEN_TOGETHER = 16
"""Copies that the network sees at a time, which bounds the memory."""


@dataclass(frozen=True)
class CentreCrops:
    """``copies`` crops of the centre, resized to the image; their sides go from near ``ratio`` of
    the image's to the whole."""

    ratio: float
    copies: int

    def __call__(self, images: Tensor) -> Tensor:
        shares = [self.ratio + (1 - self.ratio) * (at + 1) / self.copies for at in range(self.copies)]
        return torch.cat([self._crop(images, share) for share in shares])

    def _crop(self, images: Tensor, share: float) -> Tensor:
        from torchvision.transforms.functional import resized_crop

        sides = list(images.shape[-2:])
        height, width = (int(side * share) for side in sides)
        top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
        return resized_crop(images, top, left, height, width, sides)


def operations() -> tuple[Operation, ...]:
    """The 98 operations of torchattack's L2T (1.7), for images of every size and on every device.

    Two kinds are made here: its crops and its changes of the spectrum assume sides of 224 pixels,
    and the latter a CUDA device.
    """
    library = importlib.import_module("torchattack.l2t")

    def anywhere(operation: Any) -> Operation:
        if isinstance(operation, library.Crop):
            return CentreCrops(operation.ratio, operation.num_scale)
        if isinstance(operation, library.SSM):
            return SpectrumSimulation(nn.Identity(), operation.num_spectrum, operation.rho, _SPECTRUM_NOISE)
        return operation

    return tuple(map(anywhere, library.AUG_OPS))


@dataclass(frozen=True)
class LearnedTransforms:
    """MI-FGSM on the mean loss of ``draws`` chains of two ``operations``.

    An operation is drawn with probability softmax(q), from q = 0. After each step q grows by
    ``rate`` times the gradient of the mean over the chains of probability times loss, where a
    chain's probability is the product of its two. Draws come from torch's, numpy's and Python's
    generators.
    """

    network: nn.Module
    epsilon: float
    steps: int
    step_size: float
    decay: float
    targeted: bool
    draws: int
    rate: float
    operations: Sequence[Operation] = field(default_factory=operations)

    def __call__(self, image: Tensor, label: Tensor) -> Tensor:
        """The attacked ``image`` [1,3,height,width], away from or towards its ``label`` [1]."""
        scores = torch.zeros(len(self.operations), requires_grad=True)

        def downhill(step: int, point: Tensor) -> Tensor:
            nonlocal scores
            slope, wanted = torch.zeros_like(image), torch.zeros(())
            for _ in range(self.draws):
                chances = scores.softmax(0)
                chain = torch.multinomial(chances.detach(), _CHAIN, replacement=True)
                loss, gradient = self._look(point, label, chain.tolist())
                slope, wanted = slope + gradient / self.draws, wanted + chances[chain].prod() * loss / self.draws
            scores = self._learned(scores, wanted)
            return -slope

        bounds = (image - self.epsilon).clamp(min=0), (image + self.epsilon).clamp(max=1)
        return sign_steps(image, downhill, self.steps, self.step_size, bounds, self.decay)

    def _look(self, point: Tensor, label: Tensor, chain: Sequence[int]) -> tuple[float, Tensor]:
        """The mean loss over the copies that a chain of operations makes of ``point``, which the
        attack raises, and its gradient."""
        leaf = point.detach().requires_grad_()
        shown = leaf
        for at in chain:
            shown = self.operations[at](shown)
        total, parts = 0.0, []
        for copies in shown.detach().split(_SEEN_TOGETHER):
            seen = copies.requires_grad_()
            loss = cross_entropy(self.network(seen), label.expand(len(seen)), reduction="sum") / len(shown)
            loss = -loss if self.targeted else loss
            parts.append(torch.autograd.grad(loss, seen)[0])
            total += float(loss.detach())
        return total, torch.autograd.grad(shown, leaf, torch.cat(parts))[0]

    def _learned(self, scores: Tensor, wanted: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(wanted, scores)
        return (scores + self.rate * slope).detach().requires_grad_()
