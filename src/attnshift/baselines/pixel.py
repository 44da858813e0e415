"""Baselines that take sign steps within a radius of the image. Options are read without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from attnshift.baselines.kinds import Radius, RadiusBaseline
from attnshift.ensemble import RULES
from attnshift.registry import build

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.fusion import FusionRule
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.types import RandomKey

__all__ = ["MIFGSM", "PGD", "AdaptiveEnsembleAttack"]


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
    """Number of updates."""
    step_size: Radius | None = 2 / 255
    """Change of a value in each step; None stands for ``epsilon / steps``."""
    decay: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the accumulated direction in each step (the momentum's decay)."""
    fusion: str = "logits"
    """Name of a fusion rule, which makes one direction of the surrogates' gradients."""
    fusion_options: dict[str, Any] = field(default_factory=dict)
    """Options of the fusion rule."""

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        self._rule()(surrogates, images)

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        return self.at_strengths(surrogates, images, key, images.new_ones(len(images)))

    def at_strengths(self, surrogates: Surrogates, images: Tensor, key: RandomKey, strengths: Tensor) -> Tensor:
        from attnshift.baselines.sign_steps import sign_steps, uniform_offsets

        strengths = strengths.view(-1, 1, 1, 1)
        epsilon, step_size = strengths * self.epsilon, strengths * (self.step_size or self.epsilon / self.steps)
        bounds = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
        points = (
            (images + epsilon * uniform_offsets(images, key, "start")).clamp(0, 1) if self.starts_at_random else images
        )
        directions = self._directions(surrogates, key, epsilon)
        return sign_steps(points, directions, self.steps, step_size, bounds, self.decay)

    def _directions(self, surrogates: Surrogates, key: RandomKey, radii: Tensor) -> Callable[[int, Tensor], Tensor]:
        """The direction [batch,3,height,width] that is accumulated, for an iteration's number and
        its points.

        ``radii`` [batch,1,1,1] are the images' own ``epsilon``.
        """
        from attnshift.baselines.sign_steps import FusedDirection

        return FusedDirection(self._rule(), surrogates)

    def _rule(self) -> FusionRule:
        return build(RULES, self.fusion, self.fusion_options)


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
