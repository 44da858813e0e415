"""Metrics of a clean image and its edit: two [batch,3,height,width] in [0,1] -> [batch].

A metric that cannot be computed raises ``UnavailableError`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attnshift import downloaded
from attnshift.errors import UnavailableError
from attnshift.metrics.haarpsi import haar_distance
from attnshift.weights_folder import LpipsNetwork

__all__ = [
    "Metric",
    "dists",
    "flat_noise",
    "haarpsi",
    "l2",
    "linf",
    "lpips_alex",
    "lpips_squeeze",
    "lpips_vgg",
    "ms_ssim",
    "psnr",
    "ssim",
]

_MS_SSIM_SIDE, _DISTS_SIDE = 176, 16
_LPIPS_SIDES: dict[LpipsNetwork, int] = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Least sides in pixels.

At these sizes, the coarsest of five scales holds one window, and the last features of a network
hold one pixel.
"""

_PATCH, _FLATTEST = 8, 0.1
"""Side of a patch in pixels, and the share of an image's patches that counts as flat."""

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
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def ms_ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """Multi-scale SSIM in [0,1], 1 for equal images (Wang, Simoncelli and Bovik, Asilomar 2003).

    Contrast and structure are compared on five scales, luminance on the coarsest. Weights are the
    paper's, and the window is SSIM's. Negative values count as 0. Borders are reflected, and
    counted on the coarsest scale alone.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    _check_sides(reference, _MS_SSIM_SIDE)
    return multiscale_structural_similarity_index_measure(candidate, reference, data_range=1.0, reduction="none")


def psnr(reference: Tensor, candidate: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(candidate, reference, data_range=1.0, reduction="none", dim=(1, 2, 3))


def l2(reference: Tensor, candidate: Tensor) -> Tensor:
    """Euclidean distance, from 0 up."""
    return (candidate - reference).flatten(1).norm(dim=1)


def linf(reference: Tensor, candidate: Tensor) -> Tensor:
    """Largest change of a value, in [0,1]."""
    return (candidate - reference).flatten(1).abs().max(1).values


def haarpsi(reference: Tensor, candidate: Tensor) -> Tensor:
    """HaarPSI in [0,1], 1 for equal images (Reisenhofer et al., Signal Processing: Image
    Communication 61, 2018)."""
    return 1 - haar_distance(candidate, reference)


def flat_noise(reference: Tensor, candidate: Tensor) -> Tensor:
    """Noise that flat ground has gained: a standard deviation in 8-bit levels, from 0 up.

    Noise is seen where nothing masks it (Legge and Foley, JOSA 1980), and there SSIM, with its
    constants for stability, and features of networks hardly count it. The image is cut into patches
    of 8 x 8 pixels. The tenth whose standard deviation in ``reference`` is smallest is its flat
    ground, as in the estimation of noise from blocks (Olsen, CVGIP: Graphical Models and Image
    Processing 1993). A patch has gained the root of how much its variance has grown, over the
    pixels and the three channels; 0 if it has not grown. The value is the mean over flat patches.
    Another brightness or colour of a whole patch counts as nothing.
    """
    _check_sides(reference, _PATCH)
    before, after = _patch_variances(reference), _patch_variances(candidate)
    rank = max(1, round(_FLATTEST * before.shape[1]))
    # Patches that are equally flat all count: the choice does not depend on their order.
    flat = before <= before.sort(dim=1).values[:, rank - 1 : rank]
    gained = (after - before).clamp(min=0).sqrt()
    return 255 * (gained * flat).sum(1) / flat.sum(1)


@dataclass(frozen=True)
class _Lpips:
    """LPIPS, from 0 for equal images up (Zhang et al., CVPR 2018).

    It is version 0.1, a distance of the features of ``network`` at the images' own size.
    """

    network: LpipsNetwork

    def __call__(self, reference: Tensor, candidate: Tensor) -> Tensor:
        _check_sides(reference, _LPIPS_SIDES[self.network])
        network = downloaded.load_lpips(self.network).to(reference)
        return _in_parts(lambda first, second: network(second, first, normalize=True), reference, candidate)


lpips_alex, lpips_squeeze, lpips_vgg = _Lpips("alex"), _Lpips("squeeze"), _Lpips("vgg")


def dists(reference: Tensor, candidate: Tensor) -> Tensor:
    """DISTS in [0,1], 0 for equal images (Ding et al., TPAMI 2022).

    It compares means and correlations of VGG-16's feature maps, and tolerates resampled texture.
    Images keep their size; the authors' code shrinks larger ones to 256 pixels on the shorter side.
    """
    _check_sides(reference, _DISTS_SIDE)
    network = downloaded.load_dists().to(reference)
    return _in_parts(lambda first, second: network(second, first), reference, candidate)


def _patch_variances(images: Tensor) -> Tensor:
    """Variances [batch,patches] around each patch's mean colour; pixels beyond whole patches do not
    count."""
    patches = images.unfold(2, _PATCH, _PATCH).unfold(3, _PATCH, _PATCH)
    return patches.var((4, 5), correction=0).mean(1).flatten(1)


def _in_parts(distance: Callable[[Tensor, Tensor], Tensor], reference: Tensor, candidate: Tensor) -> Tensor:
    """Distances, for a few images at a time: VGG's features of 512 x 512 pixels fill 200 MB."""
    parts = zip(reference.split(_TOGETHER), candidate.split(_TOGETHER), strict=True)
    return torch.cat([distance(first, second).flatten() for first, second in parts])


def _check_sides(images: Tensor, least: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < least:
        raise UnavailableError(f"needs images of at least {least} x {least} pixels, and these have {height} x {width}")
