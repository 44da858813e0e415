"""The kinds of baselines, by what they are told to keep: a radius, or a budget. Options are read
without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field

from attnshift.baselines.options import ScaledOptions
from attnshift.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.metrics.budget import Budget
    from attnshift.types import RandomKey

__all__ = ["Baseline", "BudgetBaseline", "Radius", "RadiusBaseline"]

Radius = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Baseline(ScaledOptions, ABC):
    """Attack on pixels: images [batch,3,height,width] in [0,1] -> images of the same kind.

    Random draws depend on the key ``key`` of each image.
    """

    @abstractmethod
    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        """Raise ``UserError`` if the attack cannot run, as with a missing library or goal."""

    @abstractmethod
    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        """Attacked images in [0,1], of the shape of ``images``."""

    def at_strengths(self, surrogates: Surrogates, images: Tensor, key: RandomKey, strengths: Tensor) -> Tensor:
        """As a call, but each image with its own of ``strengths`` [batch] on the lengths."""
        import torch

        from attnshift.batching import select_rows

        rows = [slice(at, at + 1) for at in range(len(images))]
        return torch.cat(
            [
                self.scaled(float(strengths[at]))(select_rows(surrogates, row), images[row], select_rows(key, row))
                for at, row in enumerate(rows)
            ]
        )

    def spend(self, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget) -> Tensor:
        """Attacked images in steps of 1/255 that keep ``budget``; an image for which none does
        comes back unchanged.

        ``images`` are in steps of 1/255 as well. The attack runs again at each strength of a
        search, image by image: the largest that keeps the budget. A finished change is never
        shrunk, which would waste the budget.
        """
        from attnshift.baselines.rounding import dithered
        from attnshift.batching import select_rows
        from attnshift.metrics.budget import furthest_kept

        def attack(strengths: Tensor, rows: Tensor) -> Tensor:
            own = select_rows(key, rows)
            return dithered(self.at_strengths(select_rows(surrogates, rows), images[rows], own, strengths), own)

        return furthest_kept(budget, images, images, attack)[1]


@dataclass(frozen=True)
class RadiusBaseline(Baseline):
    """Baseline whose result is within ``epsilon`` of the images (L-infinity)."""

    lengths: ClassVar[tuple[str, ...]] = ("epsilon",)
    epsilon: Radius = 8 / 255
    """Greatest change of a value, pixels counting from 0 to 1."""


@dataclass(frozen=True)
class BudgetBaseline(Baseline):
    """Baseline that optimises a budget by its gradient, where the others run again at each strength
    of a search.

    It runs only within a budget, and has no strength beside it.
    """

    @abstractmethod
    def spend(self, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget) -> Tensor:
        """Attacked images in steps of 1/255 that keep ``budget``, which the attack optimises."""
        ...

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        raise self._misused("runs only within one; give it a budget, such as ssim = 0.95")

    def scaled(self, strength: float) -> Self:
        """Raises ``RecipeError``: there is no radius."""
        raise self._misused("has no radius to scale; change the limit of its budget")

    def _misused(self, advice: str) -> RecipeError:
        return RecipeError(f"{type(self).__name__} optimises a budget and {advice}")
