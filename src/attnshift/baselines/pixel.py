"""The kinds of baselines, and those of our own that take sign steps
within a radius of the image. Options are read without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from attnshift.ensemble import RULES
from attnshift.errors import RecipeError
from attnshift.registry import STRICT, build

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.fusion import FusionRule
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.metrics.budget import Budget
    from attnshift.types import RandomKey

__all__ = ["MIFGSM", "PGD", "AdaptiveEnsembleAttack", "Baseline", "BudgetBaseline", "RadiusBaseline"]

Radius = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Baseline(ABC):
    """Attack on pixels: images [batch,3,height,width] in [0,1] -> images of the same kind.

    Options are fields; ``lengths`` names those that are as long as the change, which the strength
    of an attack is a factor on. Random draws depend on the key ``key`` of each image.
    """

    __pydantic_config__ = STRICT
    lengths: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        """Raise ``UserError`` if the attack cannot run, as with a missing library or goal."""

    @abstractmethod
    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        """Attacked images in [0,1], of the shape of ``images``."""

    def scaled(self, strength: float) -> Self:
        """The same attack with ``strength`` times its lengths; one that is None stays so."""
        lengths = {name: getattr(self, name) for name in self.lengths}
        return replace(self, **{name: strength * each for name, each in lengths.items() if each is not None})

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


@dataclass(frozen=True)
class RadiusBaseline(Baseline):
    """Baseline whose result is within ``epsilon`` of the images (L-infinity)."""

    lengths: ClassVar[tuple[str, ...]] = ("epsilon",)
    epsilon: Radius = 8 / 255


@dataclass(frozen=True)
class BudgetBaseline(Baseline):
    """Baseline that optimises a budget itself, where the others run again at each radius of a
    search.

    It runs only within a budget, and has no strength beside it.
    """

    @abstractmethod
    def spend(self, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget) -> Tensor:
        """Attacked images in steps of 1/255 that keep ``budget``; an image for which none does
        comes back unchanged.

        ``images`` are in steps of 1/255 as well.
        """

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        raise self._misused("runs only within one; give it a budget, such as ssim = 0.95")

    def scaled(self, strength: float) -> Self:
        raise self._misused("has no radius to scale; change the limit of its budget")

    def _misused(self, advice: str) -> RecipeError:
        return RecipeError(f"{type(self).__name__} optimises a budget and {advice}")


@dataclass(frozen=True)
class PGD(RadiusBaseline):
    """Projected gradient descent from a random point of the ball: Madry et al.

    (ICLR 2018), section 2.1.

    Each step moves every value by ``step_size`` against the sign of a direction. The fusion rule
    ``fusion`` computes the direction from the surrogates' gradients, by default from their mean
    logits. The result is the last iterate.
    """

    lengths: ClassVar[tuple[str, ...]] = ("epsilon", "step_size")
    starts_at_random: ClassVar[bool] = True
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    step_size: Radius | None = 2 / 255
    """Change of a value in each step; None stands for ``epsilon / steps``."""
    decay: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the accumulated direction in each step (the momentum's decay)."""
    fusion: str = "logits"
    fusion_options: dict[str, Any] = field(default_factory=dict)

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        self._rule()(surrogates, images)

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        return self.at_strengths(surrogates, images, key, images.new_ones(len(images)))

    def at_strengths(self, surrogates: Surrogates, images: Tensor, key: RandomKey, strengths: Tensor) -> Tensor:
        strengths = strengths.view(-1, 1, 1, 1)
        epsilon, step_size = strengths * self.epsilon, strengths * (self.step_size or self.epsilon / self.steps)
        low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
        rule = self._rule()
        points = (images + epsilon * self._offsets(images, key)).clamp(0, 1) if self.starts_at_random else images
        accumulated, state = images.new_zeros(images.shape), None
        for _ in range(self.steps):
            fused = rule(surrogates, points, state)
            lengths = fused.direction.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
            accumulated, state = self.decay * accumulated + fused.direction / lengths, fused.state
            points = (points - step_size * accumulated.sign()).clamp(low, high)
        return points

    def _rule(self) -> FusionRule:
        return build(RULES, self.fusion, self.fusion_options)

    def _offsets(self, images: Tensor, key: RandomKey) -> Tensor:
        import torch

        from attnshift.randomness import generator

        drawn = [torch.from_numpy(generator(key.seed, id, "start").uniform(-1, 1, images.shape[1:])) for id in key.ids]
        return torch.stack(drawn).to(images)


@dataclass(frozen=True)
class MIFGSM(PGD):
    """Momentum iterative FGSM on the mean logits: Dong et al. (CVPR 2018), algorithms 1 and 2."""

    starts_at_random: ClassVar[bool] = False
    epsilon: Radius = 16 / 255
    step_size: Radius | None = None
    decay: Annotated[float, Field(ge=0)] = 1.0


@dataclass(frozen=True)
class AdaptiveEnsembleAttack(MIFGSM):
    """MI-FGSM along the direction of the adaptive model ensemble attack: Chen et al.

    (ICCV 2023).
    """

    fusion: str = "adaea"
