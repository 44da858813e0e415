"""Transfer attacks of torchattack: MI-FGSM over changed copies of the image."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from attnshift.baselines.external.baseline import ExternalBaseline
from attnshift.baselines.kinds import Radius
from attnshift.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.types import Goals

__all__ = ["BSR", "DI", "L2T", "SSA", "TI"]


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError("must be odd, so that the kernel has a centre")
    return length


@dataclass(frozen=True)
class TorchattackBaseline(ExternalBaseline):
    """Momentum iterative sign steps (Dong et al., CVPR 2018),
    towards the target if one is given."""

    libraries: ClassVar[tuple[str, ...]] = ("torchattack",)
    lengths: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Number of updates."""
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
        import torch

        from attnshift.baselines.external.networks import SmoothedGradient

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
        from torch.nn.functional import cross_entropy

        from attnshift.baselines.external.networks import SpectrumSimulation

        sigma = self.epsilon if self.sigma is None else self.sigma
        attack = library.MIFGSM(SpectrumSimulation(network, self.num_spectrum, self.rho, sigma), **loop)
        attack.lossfn = lambda logits, label: cross_entropy(logits, label.expand(len(logits)))
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


@dataclass(frozen=True)
class L2T(TorchattackBaseline):
    """Learning to transform: Zhu et al. (CVPR 2024).

    The gradient is the mean over ``num_scale`` draws of two of 98 operations in a row (rotations,
    scales, blocks, masks, spectra, ...), each of which may make several copies. The probabilities
    of the operations are learned on the way. The operations are torchattack's, and two of their
    kinds are remade for images of every size; the loop is ours, since the library's keeps the
    graphs of all copies at once. An image costs about 1000 gradients of each surrogate: 34 copies a
    draw on average.
    """

    num_scale: Annotated[int, Field(ge=1, le=1000)] = 3
    """torchattack's own default is 5."""
    learning_rate: Annotated[float, Field(ge=0, le=100)] = 0.01
    """Step of the scores whose softmax are the operations' probabilities."""

    def _build(self, library: Any, network: nn.Module, loop: dict[str, Any]) -> Any:
        from attnshift.baselines.external.learned_transforms import LearnedTransforms

        return LearnedTransforms(
            network,
            self.epsilon,
            self.steps,
            self.step_size or self.epsilon / self.steps,
            self.decay,
            loop["targeted"],
            self.num_scale,
            self.learning_rate,
        )
