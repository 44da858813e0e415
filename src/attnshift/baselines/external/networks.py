"""Networks that other libraries are handed, and the generators that they draw from."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy
import torch
from torch import Tensor, nn

from attnshift.randomness import generator

__all__ = ["Averaged", "SmoothedGradient", "SpectrumSimulation", "classes_of", "seed_generators"]


class Averaged(nn.Module):
    """Mean of the logits of ``classifiers`` (Dong et al., "MI-FGSM", CVPR 2018, section 3.4).

    As a module it has no weights, so a library that changes a network's mode or weights cannot
    change a classifier.
    """

    def __init__(self, classifiers: Sequence[Callable[[Tensor], Tensor]]):
        super().__init__()
        self.classifiers = tuple(classifiers)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([classifier(images) for classifier in self.classifiers]).mean(0)


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


@torch.no_grad()
def classes_of(network: nn.Module, image: Tensor) -> int:
    return network(image).shape[1]


@contextmanager
def seed_generators(seed: int, id: str, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python for one image, then restore them."""
    # Results depend on the last word of the key, so it stays.
    number = int(generator(seed, id, "peer").integers(2**32))
    of_numpy, of_python = numpy.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.default_generator.manual_seed(number)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(number)
            numpy.random.seed(number)
            random.seed(number)
            yield
        finally:
            numpy.random.set_state(of_numpy)
            random.setstate(of_python)
