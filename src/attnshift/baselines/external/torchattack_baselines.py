"""Transfer attacks of torchattack: MI-FGSM over changed copies of the image."""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from attnshift.baselines.external.baseline import ExternalBaseline
from attnshift.baselines.pixel import Radius
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import RecipeError
from attnshift.types import Goals

__all__ = ["BSR", "DI", "SSA", "TI", "SmoothedGradient", "SpectrumSimulation"]


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError("must be odd, so that the kernel has a centre")
    return length


@dataclass(frozen=True)
class TorchattackBaseline(ExternalBaseline):
    """Momentum iterative sign steps (Dong et al., CVPR 2018), towards the target if one is given."""

    libraries: ClassVar[tuple[str, ...]] = ("torchattack",)
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    step_size: Radius | None = None
    """Change of a value in each step; None stands for ``epsilon / steps``."""
    decay: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the accumulated direction in each step (the momentum's decay)."""

    def _attack(self, network: nn.Module, image: Tensor, goals: Goals) -> Tensor:
        loop: dict[str, Any] = {
            "device": image.device,
            "eps": self.epsilon,
            "steps": self.steps,
            "alpha": self.step_size,
            "decay": self.decay,
            "targeted": goals.targets is not None,
        }
        attack = self._build(importlib.import_module("torchattack"), network, loop)
        return attack(image, goals.labels if goals.targets is None else goals.targets)

    @abstractmethod
    def _build(self, library: Any, network: nn.Module, loop: dict[str, Any]) -> Any:
        """Attack of the ``library`` on ``network``, with the options of its ``loop``."""


@dataclass(frozen=True)
class DI(TorchattackBaseline):
    """Diverse inputs: Xie et al. (CVPR 2019), section 3.3, M-DI2-FGSM.

    With probability ``diversity_prob`` the surrogates see the image resized to a random side, at a
    random place on black. The side lies between the image's own and ``resize_rate`` times it.
    """

    resize_rate: Annotated[float, Field(ge=0.1, le=4)] = 1.1
    """1.1 is the paper's 330 of 299 pixels. torchattack's own default is 0.9."""
    diversity_prob: Annotated[float, Field(ge=0, le=1)] = 0.5

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        super().check(surrogates, images)
        side = images.shape[-1]
        if int(side * self.resize_rate) == side:
            raise RecipeError(f"baseline 'di': resize_rate {self.resize_rate} does not change a side of {side} pixels")

    def _build(self, library: Any, network: nn.Module, loop: dict[str, Any]) -> Any:
        return library.DIFGSM(network, resize_rate=self.resize_rate, diversity_prob=self.diversity_prob, **loop)


@dataclass(frozen=True)
class TI(TorchattackBaseline):
    """Translation invariance: Dong et al. (CVPR 2019), section 3.2, on top of MI-FGSM.

    The gradient at the image is smoothed by a Gaussian kernel of ``kernel_len`` pixels, which
    covers ``n_sig`` standard deviations on either side. The kernel is torchattack's; the loop is
    that of its MIFGSM. Its TIFGSM (1.7) stores the smoothed gradient in the variable of the
    momentum and so has no momentum. With ``decay`` 0 both are the same.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torchattack", "scipy")
    kernel_len: Annotated[int, Field(ge=1, le=99), AfterValidator(_odd)] = 15
    """15 is the paper's length, for images of 299 pixels."""
    n_sig: Annotated[int, Field(ge=1, le=20)] = 3

    def _build(self, library: Any, network: nn.Module, loop: dict[str, Any]) -> Any:
        kernel = torch.from_numpy(library.TIFGSM.gkern(self.kernel_len, self.n_sig))
        return library.MIFGSM(SmoothedGradient(network, kernel), **loop)


@dataclass(frozen=True)
class SSA(TorchattackBaseline):
    """Spectrum simulation: Long et al. (ECCV 2022), section 3.3, on top of MI-FGSM.

    The gradient is the mean over ``num_spectrum`` copies. A copy gets noise of standard deviation
    ``sigma``, and its spectrum is multiplied by factors from 1 - ``rho`` to 1 + ``rho``. The loop
    is that of torchattack's MIFGSM, and the copies are made here. torchattack's SSA (1.7) takes
    images of 224 pixels only and resets its momentum in each step.
    """

    num_spectrum: Annotated[int, Field(ge=1, le=1000)] = 20
    rho: Annotated[float, Field(ge=0, le=1)] = 0.5
    sigma: Annotated[float, Field(ge=0, le=1)] | None = None
    """Standard deviation of the noise; None stands for ``epsilon``, as in the paper."""

    def _build(self, library: Any, network: nn.Module, loop: dict[str, Any]) -> Any:
        sigma = self.epsilon if self.sigma is None else self.sigma
        attack = library.MIFGSM(SpectrumSimulation(network, self.num_spectrum, self.rho, sigma), **loop)
        attack.lossfn = lambda logits, label: nn.functional.cross_entropy(logits, label.expand(len(logits)))
        return attack


@dataclass(frozen=True)
class BSR(TorchattackBaseline):
    """Block shuffle and rotation: Wang et al. (CVPR 2024).

    The gradient is the mean over ``num_scale`` copies. Each copy is cut into ``num_block`` by
    ``num_block`` blocks of random sizes, which are shuffled and rotated by up to 24 degrees.
    """

    num_scale: Annotated[int, Field(ge=1, le=1000)] = 20
    num_block: Annotated[int, Field(ge=1, le=16)] = 2
    """2 is the paper's value. The authors' code has 3, and so has torchattack."""

    def _build(self, library: Any, network: nn.Module, loop: dict[str, Any]) -> Any:
        return library.BSR(network, num_scale=self.num_scale, num_block=self.num_block, **loop)


class SmoothedGradient(nn.Module):
    """``network`` with its input gradient smoothed by ``kernel`` [length,length], per channel."""

    def __init__(self, network: nn.Module, kernel: Tensor):
        super().__init__()
        self.network, self.kernel = network, kernel

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            images = images.view_as(images)
            images.register_hook(self._smooth)
        return self.network(images)

    def _smooth(self, gradient: Tensor) -> Tensor:
        kernel = self.kernel.to(gradient).expand(3, 1, -1, -1)
        return nn.functional.conv2d(gradient, kernel, padding="same", groups=3)


class SpectrumSimulation(nn.Module):
    """Logits [copies,classes] of ``network`` for copies of one image with a changed spectrum (SSA).

    A copy is IDCT(DCT(image + noise) * factors). Draws come from torch's generator, copy by copy.
    """

    def __init__(self, network: nn.Module, copies: int, rho: float, sigma: float):
        super().__init__()
        self.network, self.copies, self.rho, self.sigma = network, copies, rho, sigma

    def forward(self, image: Tensor) -> Tensor:
        return self.network(torch.cat([self.simulate(image) for _ in range(self.copies)]))

    def simulate(self, image: Tensor) -> Tensor:
        rows, columns = (_cosines(side).to(image) for side in image.shape[-2:])
        noisy = image + self.sigma * torch.randn(image.shape).to(image)
        factors = 1 + self.rho * (2 * torch.rand(image.shape).to(image) - 1)
        return rows.T @ (rows @ noisy @ columns.T * factors) @ columns


def _cosines(side: int) -> Tensor:
    """Orthonormal DCT-II as a matrix [side,side] in float64, with one row for each frequency."""
    at = torch.arange(side, dtype=torch.float64)
    waves = (math.pi / side * (at + 0.5) * at[:, None]).cos() * (2 / side) ** 0.5
    waves[0] /= 2**0.5
    return waves
