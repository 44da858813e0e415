"""Perceptual PGD: steps in a ball of network features. Its options are read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from attnshift.baselines.kinds import Baseline
from attnshift.ensemble import RULES
from attnshift.errors import UnavailableError
from attnshift.metrics import METRICS
from attnshift.registry import build, look_up
from attnshift.weights_folder import LpipsNetwork

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.fusion import FusionRule
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.types import RandomKey

__all__ = ["PPGD"]


@dataclass(frozen=True)
class PPGD(Baseline):
    """Perceptual PGD: Laidlaw, Singla and Feizi (ICLR 2021).

    The result is within ``bound`` of the images in the features of ``network``, which are not
    LPIPS: see ``lpips_features``. Each step has the length 2 ``bound`` / ``steps`` there, in the
    direction that lowers the surrogates' margins most for that length; a projection follows. The
    fusion rule ``fusion`` computes the margins' direction, by default from the mean logits. The
    result is the last iterate.
    """

    lengths: ClassVar[tuple[str, ...]] = ("bound", "noise")
    bound: Annotated[float, Field(gt=0, le=100)] = 0.5
    network: LpipsNetwork = "squeeze"
    steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    solver_steps: Annotated[int, Field(ge=1, le=100)] = 5
    """Iterations of conjugate gradients that find the direction of a step."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Standard deviation of the noise at the start."""
    fusion: str = "logits"
    """Name of a fusion rule, which makes one direction of the surrogates' gradients."""
    fusion_options: dict[str, Any] = field(default_factory=dict)
    """Options of the fusion rule."""

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        try:
            look_up(METRICS, f"lpips-{self.network}")(images, images)
        except UnavailableError as error:
            raise UnavailableError(f"baseline 'ppgd' with network '{self.network}' {error}") from None
        self._rule()(surrogates, images)

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        import torch

        from attnshift.batching import select_rows

        rows = [slice(at, at + 1) for at in range(len(images))]
        return torch.cat(
            [self._alone(select_rows(surrogates, row), images[row], select_rows(key, row)) for row in rows]
        )

    def _alone(self, surrogates: Surrogates, image: Tensor, key: RandomKey) -> Tensor:
        """The attack on one ``image`` [1,3,height,width].

        Projection and solver turn a rounding error into another image, and the rounding depends on
        the batch.
        """
        from attnshift.baselines.feature_ball import FeatureBall, lpips_features
        from attnshift.baselines.margins import on_margins
        from attnshift.randomness import normal

        ball = FeatureBall(lpips_features(self.network), image, image.new_full((1,), self.bound))
        lowered, rule, state = on_margins(surrogates), self._rule(), None
        points = (image + self.noise * normal(tuple(image.shape), key.seed, key.ids[0], "start").to(image)).clamp(0, 1)
        for iteration in range(self.steps):
            fused = rule(lowered.at(iteration), points, state)
            step = ball.step(points, -fused.direction, 2 / self.steps, self.solver_steps)
            points, state = ball.project((points + step).clamp(0, 1)), fused.state
        return points

    def _rule(self) -> FusionRule:
        return build(RULES, self.fusion, self.fusion_options)
