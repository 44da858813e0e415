"""Metrics of a clean image and its edit: two [batch,3,height,width] in [0,1] -> [batch].

A metric that cannot be computed raises ``UnavailableError`` with the reason.
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
"""Least sides in pixels.

At these sizes, the coarsest of five scales holds one window, and the last features of AlexNet and
of VGG hold one pixel.
"""

_TOGETHER = 4
"""Number of images whose features are in memory at once."""


class Metric(Protocol):
    """Distance or similarity of each image to its reference: [batch], in fp32.

    Images are [batch,3,height,width] in [0,1].
    """

    def __call__(self, reference: Tensor, candidate: Tensor) -> Tensor: ...


def ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """Structural similarity in [-1,1], 1 for equal images (Wang et al., TIP 2004).

    The window is a Gaussian of 11 pixels with sigma 1.5. Borders are reflected and counted.
    """
    values = structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def ms_ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """Multi-scale SSIM in [0,1], 1 for equal images (Wang, Simoncelli and Bovik, Asilomar 2003).

    Contrast and structure are compared on five scales, luminance on the coarsest. Weights are the
    paper's, and the window is SSIM's. Negative values count as 0. Borders are reflected, and
    counted on the coarsest scale alone.
    """
    _check_sides(reference, _MS_SSIM_SIDE)
    return multiscale_structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")


def psnr(reference: Tensor, candidate: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    return peak_signal_noise_ratio(candidate, reference, data_range=1.0, reduction="none", dim=(1, 2, 3))


def l2(reference: Tensor, candidate: Tensor) -> Tensor:
    """Euclidean distance, from 0 up."""
    return (candidate - reference).flatten(1).norm(dim=1)


def linf(reference: Tensor, candidate: Tensor) -> Tensor:
    """Largest change of a value, in [0,1]."""
    return (candidate - reference).flatten(1).abs().max(1).values


def lpips(reference: Tensor, candidate: Tensor) -> Tensor:
    """LPIPS, from 0 for equal images up (Zhang et al., CVPR 2018).

    It is version 0.1, a distance of AlexNet's features at the images' own size.
    """
    _check_sides(reference, _LPIPS_SIDE)
    network = downloaded.load_lpips("alex").to(reference)
    return _in_parts(lambda first, second: network(second, first, normalize=True), reference, candidate)


def dists(reference: Tensor, candidate: Tensor) -> Tensor:
    """DISTS in [0,1], 0 for equal images (Ding et al., TPAMI 2022).

    It compares means and correlations of VGG-16's feature maps, and tolerates resampled texture.
    Images keep their size; the authors' code shrinks larger ones to 256 pixels on the shorter side.
    """
    _check_sides(reference, _DISTS_SIDE)
    network = downloaded.load_dists().to(reference)
    return _in_parts(lambda first, second: network(second, first), reference, candidate)


def _in_parts(distance: Callable[[Tensor, Tensor], Tensor], reference: Tensor, candidate: Tensor) -> Tensor:
    """Distances, for a few images at a time: VGG's features of 512 x 512 pixels fill 200 MB."""
    parts = zip(reference.split(_TOGETHER), candidate.split(_TOGETHER), strict=True)
    return torch.cat([distance(first, second).flatten() for first, second in parts])


def _check_sides(images: Tensor, least: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < least:
        raise UnavailableError(f"needs images of at least {least} x {least} pixels, and these have {height} x {width}")
