"""AdvAD and AdvAD-X: attacks along a diffusion path that needs no diffusion model. Options are read
without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from attnshift.baselines.kinds import Baseline, RadiusBaseline
from attnshift.ensemble import RULES
from attnshift.errors import ModelError
from attnshift.registry import build

if TYPE_CHECKING:
    from torch import Tensor

    from attnshift.ensemble.fusion import FusionRule
    from attnshift.ensemble.surrogates import Surrogates
    from attnshift.metrics.budget import Budget
    from attnshift.types import RandomKey

__all__ = ["LEVELS", "AdvAD", "AdvADX"]


LEVELS = 1000
"""Noise levels of the whole schedule."""


def _on_the_schedule(steps: int) -> int:
    stride = ceil(LEVELS / steps)
    taken = ceil(LEVELS / stride)
    if taken != steps:
        raise ValueError(
            f"no whole stride takes {steps} of the {LEVELS} noise levels; a stride of {stride} takes {taken}"
        )
    return steps


Steps = Annotated[int, Field(ge=1, le=LEVELS), AfterValidator(_on_the_schedule)]


@dataclass(frozen=True)
class AdvAD(RadiusBaseline):
    """Attack along a diffusion path without a diffusion model: Li et al. (NeurIPS 2024).

    A DDIM path leads from noise to the image. The noise is known, so no network denoises. At each
    step the surrogates' gradient of log(1 - p_y), clipped, is added to it. The noise cancels: see
    ``advad_path.climb``. Nothing is random.

    ``epsilon`` is the paper's xi. The fusion rule ``fusion`` computes the gradient, by default on
    the mean of the surrogates' logits. Its length counts, since only the clipped gradient has a
    length of its own; so take no rule that scales gradients to unit length. A target's
    log-probability is raised in place of log(1 - p_y). The saved image is rounded to the nearest
    level within ``epsilon``, as the paper evaluates it.

    Within a budget ``lengths_tried`` is gone through, shortest first, since a long path changes an
    image less; a search for ``epsilon`` follows at the length found. An image costs at most the sum
    of these lengths but the last, and 7 times the length found: 785 gradients of each surrogate.
    """

    steps: Steps = 1000
    """Levels of the path, and gradients of each surrogate; not used within a budget.

    They are every k-th of 1000 levels, for a whole k."""
    lengths_tried: Annotated[tuple[Steps, ...], Field(min_length=1)] = (10, 25, 50, 100)
    """Values of ``steps`` within a budget.

    An image takes the first with which it keeps the budget at ``epsilon``, or else the last."""
    fusion: str = "logits"
    """Name of a fusion rule, which makes one direction of the surrogates' gradients."""
    fusion_options: dict[str, Any] = field(default_factory=dict)
    """Options of the fusion rule."""

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        self._rule()(surrogates, images)
        self._slopes(surrogates, images)

    def __call__(self, surrogates: Surrogates, images: Tensor, key: RandomKey) -> Tensor:
        from attnshift.baselines.rounding import nearest_within

        ends = self.at_strengths(surrogates, images, key, images.new_ones(len(images)))
        return nearest_within(images, ends, self.epsilon)

    def at_strengths(self, surrogates: Surrogates, images: Tensor, key: RandomKey, strengths: Tensor) -> Tensor:
        """As a call, but each image with its own of ``strengths`` [batch] on ``epsilon``, and in
        real numbers."""
        from attnshift.baselines.advad_path import climb, noise_ratios

        slopes = self._slopes(surrogates, images)
        return climb(images, strengths * self.epsilon, noise_ratios(self.steps), slopes).clamp(0, 1)

    def spend(self, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget) -> Tensor:
        from attnshift.batching import select_rows

        found = images.clone()
        lengths = self._lengths(surrogates, images, key, budget)
        for steps in lengths.unique().tolist():
            rows = (lengths == steps).nonzero()[:, 0]
            alone = select_rows(surrogates, rows), images[rows], select_rows(key, rows)
            found[rows] = Baseline.spend(replace(self, steps=steps), *alone, budget)
        return found

    def _lengths(self, surrogates: Surrogates, images: Tensor, key: RandomKey, budget: Budget) -> Tensor:
        """Length [batch] of each image's path within ``budget``."""
        import torch

        from attnshift.baselines.rounding import dithered
        from attnshift.batching import select_rows

        *tried, last = self.lengths_tried
        lengths, rows = torch.full((len(images),), last), torch.arange(len(images))
        for steps in tried:
            of_rows, own_key = select_rows(surrogates, rows), select_rows(key, rows)
            ends = replace(self, steps=steps).at_strengths(of_rows, images[rows], own_key, images.new_ones(len(rows)))
            kept = budget.keeps(images[rows], dithered(ends, own_key)).cpu()
            lengths[rows[kept]] = steps
            rows = rows[~kept]
            if not len(rows):
                break
        return lengths

    def _slopes(self, surrogates: Surrogates, images: Tensor) -> Callable[[int, Tensor], Tensor]:
        """From a step's number and its points on the paths of ``images`` to what the attack climbs
        there."""
        from attnshift.baselines.advad_path import LogOthers
        from attnshift.baselines.sign_steps import FusedDirection

        along = FusedDirection(self._rule(), replace(surrogates, criterion=LogOthers()))
        return lambda step, points: -along(step, points)

    def _rule(self) -> FusionRule:
        return build(RULES, self.fusion, self.fusion_options)


@dataclass(frozen=True)
class AdvADX(AdvAD):
    """AdvAD-X: Li et al. (NeurIPS 2024), a small change that just fools the surrogates.

    Dynamic guidance injection: the step is 0 where all surrogates are fooled, or see the target,
    and only the others' gradients are computed. CAM assistance: before it is clipped, the gradient
    is multiplied by the Grad-CAM map of the true class, the mean of the surrogates' maps.

    A fusion rule starts without memory in each step. Rounding to 8 bits takes most of a change of
    half a level away, and its success with it, as the paper says.
    """

    def check(self, surrogates: Surrogates, images: Tensor) -> None:
        try:
            super().check(surrogates, images)
        except ModelError as error:
            raise ModelError(f"baseline 'advad_x': {error}") from None

    def _slopes(self, surrogates: Surrogates, images: Tensor) -> Callable[[int, Tensor], Tensor]:
        import torch

        from attnshift.baselines.advad_path import LogOthers
        from attnshift.batching import select_rows

        lowered, rule = replace(surrogates, criterion=LogOthers()), self._rule()
        masks = self._masks(surrogates, images)

        def slopes(step: int, points: Tensor) -> Tensor:
            seen = lowered.at(step)
            resisting = (seen.judge(points)[1] >= 0).any(0).nonzero()[:, 0]
            found = torch.zeros_like(points)
            if len(resisting):
                direction = rule(select_rows(seen, resisting), points[resisting]).direction
                found[resisting] = -masks[resisting] * direction
            return found

        return slopes

    def _masks(self, surrogates: Surrogates, images: Tensor) -> Tensor:
        """Grad-CAM maps [batch,1,height,width] in [0,1] of the true classes, the mean over the
        surrogates."""
        import torch

        from attnshift.classifiers.gradcam import grad_cam

        labels = surrogates.goals.labels
        return torch.stack([grad_cam(each, images, labels) for each in surrogates.classifiers]).mean(0)  # type: ignore[arg-type]
