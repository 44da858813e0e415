"""The steps and rounds of AdvDiff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnshift.baselines.edits import EditInput
from attnshift.baselines.sampling import Sampled, preview, way_of
from attnshift.batching import batch_record, constant, image_norms, spread
from attnshift.diffusion.denoising import guided_prediction
from attnshift.diffusion.visits import Visit, visits

if TYPE_CHECKING:
    from attnshift.baselines.advdiff import AdvDiff

__all__ = ["Rounds", "prepare_rounds"]


@batch_record
class Rounds(Sampled):
    """AdvDiff on prepared images: an attempt is a round."""

    options: AdvDiff = constant()

    @property
    def attempts(self) -> int:
        return self.options.rounds

    def steering(self, strengths: Tensor, attempt: int) -> _Pushed:
        return _Pushed(self, self.options.scale * strengths)

    def onwards(self, start: Tensor, end: Tensor, aims: Tensor | None, strengths: Tensor) -> Tensor:
        """The ``start``, moved along the gradient at the ``end``."""
        lengths = self.options.start_scale * strengths
        if not bool(lengths.any()):
            return start
        gradient, _ = self.towards(end, lambda points: points, aims, len(self.trajectory.way))
        return self.moved(start, gradient, lengths)

    def towards(
        self, latents: Tensor, clean: Callable[[Tensor], Tensor], aims: Tensor | None, iteration: int
    ) -> tuple[Tensor, Tensor]:
        """Gradient at ``latents`` of log p of a wrong class, and that class [batch]: ``aims``, or
        else a new choice.

        The surrogates see what ``clean`` makes of the latents, decoded, under the draws of
        ``iteration``.
        """
        points = latents.detach().requires_grad_()
        with torch.enable_grad():
            images = self.shown(clean(points))
        aims = self._most_likely_wrong(images.detach()) if aims is None else aims
        return self.uphill(self.given.surrogates.at(iteration), points, images, aims), aims

    def moved(self, latents: Tensor, gradient: Tensor, lengths: Tensor) -> Tensor:
        """``latents``, moved along ``gradient`` by ``lengths`` [batch]."""
        if self.options.relative:
            lengths = lengths * image_norms(latents) / image_norms(gradient).clamp(min=1e-30)
        return latents + spread(lengths, latents) * gradient

    def _most_likely_wrong(self, images: Tensor) -> Tensor:
        """The target, or the wrong class of the highest mean logit."""
        surrogates = self.given.surrogates
        goals = surrogates.goals
        if goals.targets is not None:
            return goals.targets
        return surrogates.logits(images).mean(0).scatter(1, goals.labels[:, None], -torch.inf).argmax(1)


@dataclass
class _Pushed:
    """Guided sampling whose latents are moved by ``lengths`` [batch] after each guided step."""

    rounds: Rounds
    lengths: Tensor
    aims: Tensor | None = None

    def prediction(self, latents: Tensor, visit: Visit) -> Tensor:
        return guided_prediction(self.rounds.given.backbone, self.rounds.trajectory, latents, visit.index)[0]

    def moved(self, latents: Tensor, prediction: Tensor, visit: Visit) -> Tensor:
        options, schedule = self.rounds.options, self.rounds.trajectory.noise_schedule
        guided = 0 < visit.left <= options.guided_share * len(schedule)
        if not (guided and bool(self.lengths.any())):
            return latents

        def clean(points: Tensor) -> Tensor:
            if options.decoded == "noisy":
                return points
            return preview(schedule.path, points, prediction, schedule.levels[visit.index + 1])

        gradient, aims = self.rounds.towards(latents, clean, self.aims, visit.number)
        self.aims = aims if options.aim == "round" else None
        return self.rounds.moved(latents, gradient, self.lengths)


def prepare_rounds(options: AdvDiff, given: EditInput) -> Rounds:
    """AdvDiff with ``options`` on ``given``."""
    planned = visits(options.way)
    made = Rounds(given, options, way_of(options, given, planned), None)
    return made.regaining() if options.residual and not options.generates else made
