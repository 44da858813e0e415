"""Distances between a clean image and its edit: [batch,3,height,width] in [0,1] twice -> [batch]."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

__all__ = ["l2", "linf", "psnr", "ssim"]


def ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """In [-1,1], 1 for equal images. Gaussian window of 11 pixels, sigma 1.5; borders are reflected and counted."""
    values = structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def psnr(reference: Tensor, candidate: Tensor) -> Tensor:
    """In dB; infinite for equal images."""
    return peak_signal_noise_ratio(candidate, reference, data_range=1.0, reduction="none", dim=(1, 2, 3))


def l2(reference: Tensor, candidate: Tensor) -> Tensor:
    return (candidate - reference).flatten(1).norm(dim=1)


def linf(reference: Tensor, candidate: Tensor) -> Tensor:
    return (candidate - reference).flatten(1).abs().max(1).values
