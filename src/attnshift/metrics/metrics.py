"""Distances between a clean image and its edit: [batch,3,height,width] in [0,1] twice -> [batch].

Where one cannot be taken it raises ``UnavailableError`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from attnshift import downloaded
from attnshift.errors import UnavailableError

__all__ = ["Metric", "dists", "l2", "linf", "lpips", "ms_ssim", "psnr", "ssim"]

_MS_SSIM_SIDE, _LPIPS_SIDE, _DISTS_SIDE = 176, 31, 16
"""Least sides in pixels: the coarsest of five scales holds a window, AlexNet's and VGG's last features a pixel."""

_TOGETHER = 4
"""Images whose features are held at once."""


class Metric(Protocol):
    """How far each image [batch,3,height,width] in [0,1] is from its reference, or how near: [batch], in fp32."""

    def __call__(self, reference: Tensor, candidate: Tensor) -> Tensor: ...


def ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """In [-1,1], 1 for equal images. Gaussian window of 11 pixels, sigma 1.5; borders are reflected and counted."""
    values = structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def ms_ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """In [0,1], 1 for equal images: SSIM's contrast and structure on five scales, its luminance on the coarsest.

    The paper's weights and SSIM's window; negative values count as 0. Borders are reflected, and counted on the
    coarsest scale alone.
    """
    _check_sides(reference, _MS_SSIM_SIDE)
    return multiscale_structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")


def psnr(reference: Tensor, candidate: Tensor) -> Tensor:
    """In dB; infinite for equal images."""
    return peak_signal_noise_ratio(candidate, reference, data_range=1.0, reduction="none", dim=(1, 2, 3))


def l2(reference: Tensor, candidate: Tensor) -> Tensor:
    return (candidate - reference).flatten(1).norm(dim=1)


def linf(reference: Tensor, candidate: Tensor) -> Tensor:
    return (candidate - reference).flatten(1).abs().max(1).values


def lpips(reference: Tensor, candidate: Tensor) -> Tensor:
    """From 0 for equal images up: difference of AlexNet's features at the images' own size, version 0.1."""
    _check_sides(reference, _LPIPS_SIDE)
    network = downloaded.load_lpips("alex").to(reference)
    return _in_parts(lambda first, second: network(second, first, normalize=True), reference, candidate)


def dists(reference: Tensor, candidate: Tensor) -> Tensor:
    """In [0,1], 0 for equal images: means and correlations of VGG-16's feature maps, forgiving resampled texture.

    At the images' own size; the authors' code shrinks larger ones until the shorter side has 256 pixels.
    """
    _check_sides(reference, _DISTS_SIDE)
    network = downloaded.load_dists().to(reference)
    return _in_parts(lambda first, second: network(second, first), reference, candidate)


def _in_parts(distance: Callable[[Tensor, Tensor], Tensor], reference: Tensor, candidate: Tensor) -> Tensor:
    """The distances of a few images at a time: VGG's features of one with 512 x 512 pixels fill 200 MB."""
    parts = zip(reference.split(_TOGETHER), candidate.split(_TOGETHER), strict=True)
    return torch.cat([distance(first, second).flatten() for first, second in parts])


def _check_sides(images: Tensor, least: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < least:
        raise UnavailableError(f"needs images of at least {least} x {least} pixels, and these have {height} x {width}")
