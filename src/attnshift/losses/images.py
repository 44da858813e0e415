"""Terms on images: distances of the attacked image to the clean one, in detail, in sum, and to the
eye."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

from attnshift.downloaded import load_lpips
from attnshift.errors import ModelError, UnavailableError
from attnshift.metrics.haarpsi import haar_distance
from attnshift.registry import STRICT
from attnshift.sizes import Size
from attnshift.types import Observation, Site
from attnshift.weights_folder import LpipsNetwork

__all__ = ["L2", "Frequency", "Lpips", "Perceptual"]


@dataclass(frozen=True)
class _ImageTerm(ABC):
    """A term on the images alone, which holds them back: it reads no attention and no
    interference.

    Its options are its fields.
    """

    __pydantic_config__ = STRICT
    reads_interference: ClassVar[bool] = False
    reads_mask: ClassVar[bool] = False
    holds: ClassVar[bool] = True

    def sites(self, available: Iterable[Site], latents: Size) -> tuple[Site, ...]:
        return ()

    @abstractmethod
    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]: ...


@dataclass(frozen=True)
class Frequency(_ImageTerm):
    """Mean absolute change of fine detail against the clean image or its reconstruction, on the
    object first.

    A mean weighted by ``observation.weights`` over pixels and channels, 0 for equal images.
    ``laplacian``: of the four neighbours less four times the pixel, borders repeated (Marr and
    Hildreth, Proc. R. Soc. Lond. B 1980); in [0,8]. ``wavelet``: of the detail coefficients of an
    orthonormal transform (Mallat, TPAMI 1989; db2: Daubechies, CPAM 1988), with PyWavelets' filters
    and its mode ``periodization``, which keeps each sub-band at half the size and so under its
    pixels' mean weight. The mean over the three orientations and over ``levels``, each counting the
    same; with haar in [0, 2^levels].
    """

    reads_mask: ClassVar[bool] = True
    acts_with: ClassVar[Mapping[str, tuple[str, ...]]] = {"wavelet": ("kind", "wavelet"), "levels": ("kind", "wavelet")}
    kind: Literal["laplacian", "wavelet"] = "laplacian"
    """Detail that is compared: the Laplacian, or wavelet coefficients."""
    against: Literal["image", "reconstruction"] = "reconstruction"
    """Image to compare with: the clean image, or its reconstruction without an attack."""
    wavelet: Literal["haar", "db2"] = "haar"
    levels: Annotated[int, Field(ge=1, le=5)] = 1

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        reference = observation.images if self.against == "image" else observation.clean.images
        change, weights = observation.adversarial.images.float() - reference.float(), observation.weights.float()
        # Both transforms are linear: the transform of the change is the change of the transforms.
        if self.kind == "laplacian":
            return _weighted_mean(_laplacian(change), weights)
        return self._wavelet(change, weights)

    def _wavelet(
        self, change: Float[Tensor, "batch 3 height width"], weights: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch"]:
        values = []
        for _ in range(self.levels):
            change, weights = _evened(change), avg_pool2d(_evened(weights), 2)
            change, details = _dwt2(change, _LOW_PASS[self.wavelet])
            values.append(_weighted_mean(details, weights))
        return torch.stack(values).mean(0)


@dataclass(frozen=True)
class L2(_ImageTerm):
    """Root mean square of the image's change over pixels and channels, in [0,1] (Carlini and
    Wagner, S&P 2017).

    Its gradient for an unchanged image, which has none, is taken as 0.
    """

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        change = (observation.adversarial.images.float() - observation.images.float()).flatten(1)
        # Not the square root of a mean: only the norm's backward pass is 0, and not nan, at 0.
        return torch.linalg.vector_norm(change, dim=1) / math.sqrt(change.shape[1])


@dataclass(frozen=True)
class Lpips(_ImageTerm):
    """Learned perceptual distance to the clean image (Zhang et al., CVPR 2018), as torchmetrics
    computes it; from 0 up.

    It needs torchvision's ImageNet weights of ``network``, in the user's folder of weights or in
    torch.hub's, and never downloads them: without them, or with a file that holds anything but
    weights, construction is a ``ModelError``.
    """

    network: LpipsNetwork = "alex"

    def __post_init__(self) -> None:
        _lpips(self.network)

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        changed, clean = observation.adversarial.images.float(), observation.images.float()
        network = _lpips(self.network).to(changed)
        return network(changed, clean, normalize=True).flatten()


@dataclass(frozen=True)
class Perceptual(_ImageTerm):
    """1 - HaarPSI between the attacked and the clean image: in [0,1], 0 for equal images, without
    learned weights.

    HaarPSI (Reisenhofer, Bosse, Kutyniok and Wiegand, Signal Processing: Image Communication 61,
    2018) compares the magnitudes of two fine scales of Haar detail in Y, and the local means of I
    and Q, after halving the image, and weighs positions by a third, coarse scale. Its rank
    correlation with human ratings, 0.87 on TID2013 and 0.89 on KADID-10k, exceeds that of SSIM
    (0.64, 0.72) and LPIPS-VGG (0.67, 0.72). Of the measures that do as well without a download it
    is the one whose gradient stays finite on flat and on unchanged images; VSI's, MDSI's and
    MS-GMSDc's do not, as piq computes them.

    The formula is rearranged around equality, where the value and the gradient are exactly 0. It
    hardly sees a shift of the whole image's brightness; ``l2`` does.
    """

    def __call__(self, observation: Observation) -> Float[Tensor, "batch"]:
        return haar_distance(observation.adversarial.images.float(), observation.images.float())


def _weighted_mean(
    values: Float[Tensor, "batch channels height width"], weights: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch"]:
    """Mean of |values| under ``weights``."""
    return (values.abs().mean(1, keepdim=True) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))


def _laplacian(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    kernel = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    channels = images.shape[1]
    return conv2d(pad(images, (1, 1, 1, 1), mode="replicate"), kernel.expand(channels, 1, 3, 3), groups=channels)


_ROOT = math.sqrt(3)
_LOW_PASS: dict[str, tuple[float, ...]] = {
    "haar": (math.sqrt(1 / 2), math.sqrt(1 / 2)),
    "db2": tuple(each / (4 * math.sqrt(2)) for each in (1 - _ROOT, 3 - _ROOT, 3 + _ROOT, 1 + _ROOT)),
}
"""Decomposition filters, in PyWavelets' order."""


def _evened(images: Float[Tensor, "batch channels _ _"]) -> Float[Tensor, "batch channels _ _"]:
    """With the last row or column repeated where their number is odd, as PyWavelets does."""
    return pad(images, (0, images.shape[-1] % 2, 0, images.shape[-2] % 2), mode="replicate")


def _dwt2(
    images: Float[Tensor, "batch channels height width"], low_pass: tuple[float, ...]
) -> tuple[Float[Tensor, "batch channels height//2 width//2"], Float[Tensor, "batch 3*channels height//2 width//2"]]:
    """One level of the periodic transform of images with even sides.

    The approximation, and the details: for each channel horizontal (high-pass along columns of
    pixels), vertical and diagonal.
    """
    length, channels = len(low_pass), images.shape[1]
    high_pass = [(-1) ** (at + 1) * each for at, each in enumerate(reversed(low_pass))]
    # A convolution, hence the flip: conv2d correlates.
    low, high = images.new_tensor(low_pass).flip(0), images.new_tensor(high_pass).flip(0)
    kernels = torch.stack([torch.outer(*pair) for pair in ((low, low), (high, low), (low, high), (high, high))])
    around = pad(images, (length // 2 - 1,) * 4, mode="circular")
    bands = conv2d(around, kernels[:, None].repeat(channels, 1, 1, 1), stride=2, groups=channels)
    bands = bands.unflatten(1, (channels, 4))
    return bands[:, :, 0], bands[:, :, 1:].flatten(1, 2)


def _lpips(network: LpipsNetwork) -> nn.Module:
    try:
        return load_lpips(network)
    except UnavailableError as error:
        raise ModelError(
            f"loss term 'lpips' with network '{network}': {error}; the term 'perceptual' needs none"
        ) from None
