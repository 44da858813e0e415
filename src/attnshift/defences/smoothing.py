"""Randomised smoothing (Cohen, Rosenfeld and Kolter, "Certified adversarial robustness", ICML 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attnshift.defences.content import generators
from attnshift.defences.defended import Classify
from attnshift.registry import STRICT

__all__ = ["Certificate", "Smoothing", "lower_bound"]

_TOGETHER = 100
"""Copies that are classified at once."""


@dataclass(frozen=True)
class Certificate:
    """What a smoothed classifier vouches for, all [batch].

    ``classes``: the class, or -1 where it abstains. ``radii``: the L2 distance in [0,1] pixels within which it gives
    that class to every image, 0 where it abstains. Each is wrong with a probability of at most alpha. ``bounds`` in
    [0,1]: a lower bound of the share of noisy copies that are seen as the class that most of them are.
    """

    classes: Tensor
    radii: Tensor
    bounds: Tensor


@dataclass(frozen=True)
class Smoothing:
    """The class that the classifier gives to most of ``copies`` of an image with Gaussian noise of deviation ``sigma``.

    Noise is added in [0,1] pixels and not clamped, as in the paper. The logits are the logarithms of the shares of the
    votes, so that their softmax is the shares. They never abstain; ``certify`` does.

    ``copies`` is the paper's n; no radius exceeds sigma * Phi^-1(alpha^(1/n)), which is 1.50 sigma for 100 copies and
    3.81 sigma for the paper's 100,000. ``selection`` is its n0. Classifiers that have not been trained on such noise
    vouch for little.
    """

    __pydantic_config__ = STRICT
    differentiable: ClassVar[bool] = False
    sigma: Annotated[float, Field(ge=0, le=10)] = 0.25
    copies: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    selection: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    seed: Annotated[int, Field(ge=0)] = 0

    @torch.no_grad()
    def poll(self, classify: Classify, images: Tensor) -> Tensor:
        """Logarithms of the shares of the votes, [batch,classes]; a class without votes has the lowest finite one."""
        votes = torch.stack([self._votes(classify, image, self.copies, "estimation") for image in images.split(1)])
        return (votes.float() / self.copies).clamp(min=torch.finfo(torch.float32).tiny).log()

    @torch.no_grad()
    def certify(self, classify: Classify, images: Tensor) -> Certificate:
        """Algorithm CERTIFY of the paper: ``selection`` copies choose the class, ``copies`` others bound its share p.

        The radius is sigma * Phi^-1(p), and the classifier abstains where p is not above one half.
        """
        classes, radii, bounds = [], [], []
        for image in images.split(1):
            top = int(self._votes(classify, image, self.selection, "selection").argmax())
            agreed = int(self._votes(classify, image, self.copies, "estimation")[top])
            bound = lower_bound(agreed, self.copies, self.alpha)
            sure = bound > 0.5
            classes.append(top if sure else -1)
            radii.append(self.sigma * NormalDist().inv_cdf(bound) if sure else 0.0)
            bounds.append(bound)
        return Certificate(torch.tensor(classes), torch.tensor(radii), torch.tensor(bounds))

    def _votes(self, classify: Classify, image: Tensor, copies: int, purpose: str) -> Tensor:
        """How many of the ``copies`` of ``image`` [1,3,height,width] each class gets, [classes]."""
        (draw,) = generators(image, self.seed, "smoothing", purpose)
        votes = []
        for start in range(0, copies, _TOGETHER):
            count = min(_TOGETHER, copies - start)
            noise = torch.from_numpy(draw.standard_normal((count, *image.shape[1:])))
            logits = classify(image + self.sigma * noise.to(image))
            votes.append(torch.bincount(logits.argmax(1), minlength=logits.shape[1]))
        return torch.stack(votes).sum(0)


def lower_bound(successes: int, count: int, alpha: float) -> float:
    """One-sided lower confidence bound of a proportion at level 1 - ``alpha`` (Clopper and Pearson, Biometrika 1934).

    The p at which ``successes`` or more of ``count`` have the probability ``alpha``, by bisection on the exact tail.

    >>> round(lower_bound(10, 10, 0.05), 4)  # 0.05 ** (1 / 10)
    0.7411
    """
    if successes == 0:
        return 0.0
    hits = torch.arange(successes, count + 1, dtype=torch.float64)
    misses = count - hits
    ways = math.lgamma(count + 1) - torch.lgamma(hits + 1) - torch.lgamma(misses + 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = torch.logsumexp(ways + torch.xlogy(hits, middle) + torch.special.xlog1py(misses, -middle), 0)
        low, high = (middle, high) if float(tail) < math.log(alpha) else (low, middle)
    return low
