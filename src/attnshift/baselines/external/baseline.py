"""Base of all external baselines: one network, one image at a time, random draws by image."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from attnshift.baselines.kinds import Radius, RadiusBaseline
from attnshift.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.types import Goals, RandomKey

__all__ = ["ExternalBaseline"]


@dataclass(frozen=True)
class ExternalBaseline(RadiusBaseline):
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
        import torch

        from attnshift.baselines.external.networks import Averaged, seed_generators
        from attnshift.batching import select_rows

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


def _require(library: str, baseline: str) -> None:
    try:
        importlib.import_module(library)
    except ModuleNotFoundError:
        raise UserError(
            f"{baseline} needs {library}, which is not installed: pip install 'attnshift[baselines]'"
        ) from None
