"""ALMA with the roles exchanged: an attack that optimises the budget itself. Its options are read
without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from attnshift.baselines.kinds import BudgetBaseline
from attnshift.ensemble import RULES
from attnshift.registry import build

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.fusion import FusionRule
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.metrics.budget import Budget
    from attnshift.types import RandomKey

__all__ = ["AlmaBudget"]

Kept = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class AlmaBudget(BudgetBaseline):
    """Augmented Lagrangian method for adversarial attacks, at a given budget: after Rony et al.

    (ICCV 2021, section 3), who minimise the distance under the constraint of success. Here the
    margin is minimised under the constraint that the 8-bit image keeps the budget. The penalty, the
    rules of its two coefficients, the optimiser and its decay are theirs; docs/decisions/0013 says
    what differs. The fusion rule ``fusion`` computes the direction from the gradients of the
    surrogates' margins, by default from their mean logits. Nothing is random. The result is the
    iterate of smallest worst margin among those that keep the budget.
    """

    steps: Annotated[int, Field(ge=2, le=10_000)] = 100
    """Number of updates."""
    averaging: Kept = 0.9
    """Share of itself that the multiplier keeps in each step."""
    momentum: Kept = 0.9
    """Share of the last step that is added to the next one."""
    first_spent: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of the budget that the first step spends; it fixes the learning rate of each image."""
    last_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor on the learning rate at the end.

    It falls to that from the step on in which an image first exceeds the budget.
    """
    fusion: str = "logits"
    """Name of a fusion rule, which makes one direction of the surrogates' gradients."""
    fusion_options: dict[str, Any] = field(default_factory=dict)
    """Options of the fusion rule."""

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        self._rule()(surrogates, images)

    def spend(self, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget) -> Tensor:
        from attnshift.baselines.lagrangian import minimise_margins
        from attnshift.baselines.margins import on_margins

        return minimise_margins(self, self._rule(), on_margins(surrogates), images, budget)

    def _rule(self) -> FusionRule:
        return build(RULES, self.fusion, self.fusion_options)
