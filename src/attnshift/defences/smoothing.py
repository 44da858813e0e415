"""Randomised smoothing (Cohen et al., "Certified adversarial robustness", ICML 2019)."""

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
"""Number of copies that are classified at once."""


@dataclass(frozen=True)
class Certificate:
    """Certified classes and radii of a smoothed classifier, all [batch].

    ``classes`` are the classes, or -1 for an abstention. ``radii`` are L2 distances, for pixels in
    [0,1]: all images within the radius get the same class; 0 for an abstention. Each statement is
    wrong with a probability of at most alpha. ``bounds`` in [0,1] are lower bounds of the share of
    noisy copies that get the most frequent class.
    """

    classes: Tensor
    radii: Tensor
    bounds: Tensor


@dataclass(frozen=True)
class Smoothing:
    """Vote over ``copies`` of an image with Gaussian noise of standard deviation ``sigma``.

    Noise is added to pixels in [0,1] and the sum is not clamped, as in the paper. Logits are the
    logarithms of the shares of votes, so their softmax gives the shares. ``poll`` never abstains;
    ``certify`` may.

    ``copies`` is the paper's n, and ``selection`` is its n0. No radius exceeds sigma *
    Phi^-1(alpha^(1/n)), which is 1.50 sigma for 100 copies and 3.81 sigma for the paper's 100,000.
    Classifiers that were not trained with such noise have small radii.
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
        """Logarithms of the shares of votes, [batch,classes], with a finite value for no votes."""
        votes = torch.stack([self._votes(classify, image, self.copies, "estimation") for image in images.split(1)])
        return (votes.float() / self.copies).clamp(min=torch.finfo(torch.float32).tiny).log()

    @torch.no_grad()
    def certify(self, classify: Classify, images: Tensor) -> Certificate:
        """Certificate by the paper's algorithm CERTIFY.

        ``selection`` copies choose the class; ``copies`` other ones bound its share p from below.
        The radius is sigma * Phi^-1(p). The classifier abstains unless p is above one half.
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
        """Number of votes for each class among ``copies`` of ``image`` [1,3,height,width]."""
        (draw,) = generators(image, self.seed, "smoothing", purpose)
        votes = []
        for start in range(0, copies, _TOGETHER):
            count = min(_TOGETHER, copies - start)
            noise = torch.from_numpy(draw.standard_normal((count, *image.shape[1:])))
            logits = classify(image + self.sigma * noise.to(image))
            votes.append(torch.bincount(logits.argmax(1), minlength=logits.shape[1]))
        return torch.stack(votes).sum(0)


def lower_bound(successes: int, count: int, alpha: float) -> float:
    """One-sided lower confidence bound of a proportion, at level 1 - ``alpha``.

    It is the p at which ``successes`` or more of ``count`` have the probability ``alpha``, found by
    bisection on the exact tail (Clopper and Pearson, Biometrika 1934).

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
