"""Distances between two sets of images, estimated from their features [images,width].

Image i of the candidates was made from image i of the reference. Pairs are independent of each
other; the two images of a pair are not. All sums are in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from attnshift.metrics.statistics import Estimate

__all__ = ["Cmmd", "Fid", "Kid", "SetMetric", "paired_mmd"]

_ROWS = 512
"""Number of images whose kernel values with all others are in memory at once."""


class SetMetric(Protocol):
    """Distance between two sets of features."""

    features: ClassVar[str]
    """Name in ``FEATURES`` of the features that the metric was published with."""

    def least(self, width: int) -> int:
        """Least number of images for a figure, with features of ``width``."""
        ...

    def __call__(self, reference: Tensor, candidate: Tensor) -> Estimate:
        """Estimate from the features [images,width] of two sets, paired by row."""
        ...


@dataclass(frozen=True)
class Fid:
    """Frechet distance between normal distributions fitted to features; from 0 (equal sets) up.

    It needs 5 images per feature; for Inception's 2048 features these are the 10,000 that the
    authors recommend. With n images, two sets of the same distribution have a distance of up to
    width / 2n of the features' total variance (10 % at 5 images per feature, 26 % at 2, measured on
    independent normal features). With no more images than features, a covariance is singular. The
    remaining bias depends on the distributions (Chong and Forsyth, CVPR 2020). So figures with
    different numbers of images cannot be compared, and there is no interval.
    """

    features: ClassVar[str] = "inception"

    def least(self, width: int) -> int:
        return 5 * width

    def __call__(self, reference: Tensor, candidate: Tensor) -> Estimate:
        distance = FrechetInceptionDistance(_Identity(reference.shape[1])).to(reference.device)
        distance.update(reference.double(), real=True)
        distance.update(candidate.double(), real=False)
        return Estimate(float(distance.compute()), math.nan, math.nan, len(reference))


@dataclass(frozen=True)
class Kid:
    """Squared MMD with the kernel (x . y / width + 1)^3.

    It is 0 on average for sets of the same distribution, and may be below 0. Published figures are
    means over subsets, usually of 1000 images. The mean over all subsets is the statistic of the
    whole set, computed by ``paired_mmd``. It needs 100 images, for the interval to be about normal.
    """

    features: ClassVar[str] = "inception"

    def least(self, width: int) -> int:
        return 100

    def __call__(self, reference: Tensor, candidate: Tensor) -> Estimate:
        width = reference.shape[1]
        return paired_mmd(lambda left, right: (left @ right.T / width + 1) ** 3, reference, candidate)


@dataclass(frozen=True)
class Cmmd:
    """1000 times the squared MMD of features of unit length, with a Gaussian kernel.

    The kernel is exp(-|x - y|^2 / 2 sigma^2) with sigma 10. The metric is 0 on average for sets of
    the same distribution, and may be below 0. This is the unbiased statistic. The authors' code
    computes the biased one, which is larger; the difference shrinks with the number of images. It
    needs 100 images, as ``Kid``.
    """

    features: ClassVar[str] = "clip"

    def least(self, width: int) -> int:
        return 100

    def __call__(self, reference: Tensor, candidate: Tensor) -> Estimate:
        left, right = (nn.functional.normalize(each.double(), dim=1) for each in (reference, candidate))
        return paired_mmd(_gaussian, left, right, scale=1000)


def paired_mmd(
    kernel: Callable[[Tensor, Tensor], Tensor], reference: Tensor, candidate: Tensor, scale: float = 1
) -> Estimate:
    """``scale`` times the squared maximum mean discrepancy of two sets of at least 3 paired images.

    It is the U-statistic of Gretton et al. (JMLR 2012, eq. 4): the mean over i != j of k(x_i, x_j)
    + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i). No term compares the two images of a pair. So it is
    unbiased although an image and its edit are alike, and exactly 0 for equal sets. The estimate
    for unpaired sets (their eq. 3) would be negative there. The interval is normal, with the
    jackknife's variance over pairs, which is not too small on average (Efron and Stein, Annals of
    Statistics 1981).
    """
    x, y = reference.double(), candidate.double()
    count = len(x)
    sums = torch.cat([_sums(kernel, x, y, start) for start in range(0, count, _ROWS)])
    means = sums / (count - 1)
    value = means.mean()
    variance = 4 * (count - 1) / (count * (count - 2) ** 2) * ((means - value) ** 2).sum()
    half = NormalDist().inv_cdf(0.975) * float(variance.sqrt())
    middle = float(value)
    return Estimate(scale * middle, scale * (middle - half), scale * (middle + half), count)


def _sums(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, start: int) -> Tensor:
    """Sums over j != i of the statistic's terms, for the pairs i from ``start`` on, [rows]."""
    left, right = x[start : start + _ROWS], y[start : start + _ROWS]
    terms = kernel(left, x) + kernel(right, y) - kernel(left, y) - kernel(right, x)
    terms.diagonal(start).zero_()
    return terms.sum(1)


def _gaussian(left: Tensor, right: Tensor) -> Tensor:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return (-squares.clamp(min=0) / (2 * 10**2)).exp()


class _Identity(nn.Module):
    """Network for torchmetrics that returns the given features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features
