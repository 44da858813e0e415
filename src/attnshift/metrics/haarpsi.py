"""HaarPSI, a similarity of Haar detail and local colour (Reisenhofer et al., Signal Processing:
Image Communication 61, 2018)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

__all__ = ["haar_distance"]

_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_C, _ALPHA = 30.0, 4.2
_BEST = 1 / (1 + math.exp(-_ALPHA))
_EPS = 1e-8


def haar_distance(
    changed: Float[Tensor, "batch 3 height width"], clean: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """1 - HaarPSI of images.

    With l the logistic function and d = l(alpha) - mean l(alpha * similarity), HaarPSI =
    (l^-1(l(alpha) - d) / alpha)^2 = (1 - t)^2, and so the distance is t (2 - t) with alpha t =
    log(1 + d/(1 - l(alpha))) - log(1 - d/l(alpha)).
    """
    left, right = _halved_yiq(changed), _halved_yiq(clean)
    gaps, weights = _gaps_and_weights(left, right)
    deficit = (gaps * weights).sum((1, 2, 3)) / (weights.sum((1, 2, 3)) + _EPS)
    t = (torch.log1p(deficit / (1 - _BEST)) - torch.log1p(-deficit / _BEST)) / _ALPHA
    return t * (2 - t)


def _halved_yiq(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 _ _"]:
    """YIQ in 0 to 255, each pixel the mean of 2 x 2, an odd side filled up with zeros."""
    yiq = torch.einsum("ij,bjhw->bihw", images.new_tensor(_YIQ), images * 255)
    return avg_pool2d(pad(yiq, (0, images.shape[-1] % 2, 0, images.shape[-2] % 2)), 2)


def _gaps_and_weights(
    left: Float[Tensor, "batch 3 height width"], right: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch 3 height width"]]:
    """l(alpha) - l(alpha * similarity), and weights;
    channels are two orientations and the colour."""
    fine = [_dissimilarity(_haar(left, side), _haar(right, side)) for side in (2, 4)]
    weights = torch.maximum(_haar(left, 8), _haar(right, 8))
    colour = _dissimilarity(_local_colour(left), _local_colour(right)).mean(1, keepdim=True)
    dissimilarity = torch.cat([(fine[0] + fine[1]) / 2, colour], 1)
    # l(x) - l(y) = l(x) l(-y) (1 - exp(y - x)) without the difference's cancellation.
    gaps = _BEST * torch.sigmoid(_ALPHA * (dissimilarity - 1)) * -torch.expm1(-_ALPHA * dissimilarity)
    return gaps, torch.cat([weights, weights.mean(1, keepdim=True)], 1)


def _dissimilarity(left: Float[Tensor, "*shape"], right: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 - (2ab + C) / (a^2 + b^2 + C), in [0,1)."""
    return (left - right).square() / (left.square() + right.square() + _C)


def _haar(yiq: Float[Tensor, "batch 3 height width"], side: int) -> Float[Tensor, "batch 2 height width"]:
    """Magnitudes of the undecimated Haar detail of Y at scale ``side``; zeros around.

    Sums over halves of a square by pooling, which is several times faster than large convolutions
    and keeps fp32 on GPUs that convolve in TF32.
    """
    half = side // 2
    luma = pad(yiq[:, :1], (half - 1, half) * 2) * half
    flat, tall = avg_pool2d(luma, (half, side), stride=1), avg_pool2d(luma, (side, half), stride=1)
    return torch.cat([flat[:, :, :-half] - flat[:, :, half:], tall[..., :-half] - tall[..., half:]], 1).abs()


def _local_colour(yiq: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2 height width"]:
    """Magnitudes of the mean I and Q of 2 x 2 pixels."""
    return avg_pool2d(pad(yiq[:, 1:], (0, 1, 0, 1)), 2, stride=1).abs()
