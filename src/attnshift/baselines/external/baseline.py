"""Base of all external baselines: one network, one image at a time, random draws by image."""

from __future__ import annotations

import importlib
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy
import torch
from torch import Tensor, nn

from attnshift.baselines.pixel import Baseline, Radius
from attnshift.batching import select_rows
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import UserError
from attnshift.randomness import generator
from attnshift.types import Goals, RandomKey

__all__ = ["Averaged", "ExternalBaseline", "seed_generators"]


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


@dataclass(frozen=True)
class ExternalBaseline(Baseline):
    """Baseline that another library implements, on the mean of the surrogates' logits.

    The library gets one image at a time, and global generators are seeded for that image. Its
    result is clamped to ``epsilon`` around the image and to [0,1]. If the result is not finite,
    because a gradient vanished, the image stays unchanged.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    epsilon: Radius = 16 / 255

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        for library in self.libraries:
            _require(library, type(self).__name__)

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        self.check(surrogates, images)
        network, found = Averaged(surrogates.classifiers), []
        for at, id in enumerate(key.ids):
            image = images[at : at + 1].detach()
            with seed_generators(key.seed, id, image.device), torch.enable_grad():
                answer = self._attack(network, image, select_rows(surrogates.goals, slice(at, at + 1))).detach()
            answer = answer if bool(answer.isfinite().all()) else image
            found.append(answer.clamp((image - self.epsilon).clamp(min=0), (image + self.epsilon).clamp(max=1)))
        return torch.cat(found)

    @abstractmethod
    def _attack(self, network: nn.Module, image: Tensor, goals: Goals) -> Tensor:
        """Result of the library for ``image`` [1,3,height,width]. Global generators are seeded."""


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


def _require(library: str, baseline: str) -> None:
    try:
        importlib.import_module(library)
    except ModuleNotFoundError:
        raise UserError(
            f"{baseline} needs {library}, which is not installed: pip install 'attnshift[baselines]'"
        ) from None
