"""Ways back of a denoiser that has learned the images by heart, and APA along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnshift.baselines.content import Look, Mapped, unit_l1
from attnshift.baselines.edits import EditInput
from attnshift.baselines.sampling import preview
from attnshift.batching import batch_record, constant, per_image, spread
from attnshift.data.images import into_range
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Trajectory, guided_prediction
from attnshift.diffusion.inversion import invert
from attnshift.diffusion.low_rank import LowRank, Memorising, Projecting, changed, memorised
from attnshift.diffusion.reconstruction import Offset
from attnshift.ensemble.expectation import View
from attnshift.ensemble.transforms import ResizeAndPad
from attnshift.randomness import generator
from attnshift.sizes import size_of

if TYPE_CHECKING:
    from attnshift.baselines.apa import APA

__all__ = ["Memorised", "prepare_memorised"]

_SHRUNK = ResizeAndPad(smallest=0.9)


@batch_record
class Memorised(Mapped):
    """APA on prepared images.

    ``encoded`` [batch,channels,rows,columns] are their latents. ``memory`` is the change of the
    denoiser's ``layers``, None where it stays as it is.
    """

    options: APA = constant()
    encoded: Tensor = per_image()
    memory: LowRank | None = per_image()
    layers: Mapping[str, nn.Linear] = constant()

    @property
    def tested(self) -> Literal["files", "none"]:
        return self.options.tested

    @property
    def backbone(self) -> Backbone:
        """The diffusion model that has learned the images by heart."""
        return changed(self.given.backbone, self.memory, self.layers)

    @torch.no_grad()
    def end(self, noise: Tensor, strengths: Tensor) -> Tensor:
        return self.walk(noise, strengths, self.options.steps)[0]

    def shown(self, latents: Tensor) -> Tensor:
        return into_range(self.given.decoded(latents, self.residual))

    def look(self, noise: Tensor, strengths: Tensor, iteration: int, state: Tensor | None) -> Look:
        exact = self.options.gradient == "exact"
        points = noise.detach().requires_grad_()
        with torch.set_grad_enabled(exact):
            end, previews = self.walk(points if exact else noise, strengths, iteration)
        if not exact:
            points = end = end.requires_grad_()
        with torch.enable_grad():
            shown = self.shown(end)
            distances = (end - self.encoded).square().mean((1, 2, 3))
        seen = shown.detach()
        surrogates = self.given.surrogates.at(iteration)
        if self.options.augmented and previews:
            surrogates = replace(surrogates, views=self.views(previews, iteration))
        fused = self.options.rule()(surrogates, seen, state)
        weights = torch.full_like(distances, self.options.latent_nearness)
        (gradient,) = torch.autograd.grad((shown, distances), points, (fused.direction, weights))
        return Look(seen, fused, gradient)

    def walk(self, noise: Tensor, strengths: Tensor, iteration: int) -> tuple[Tensor, Sequence[Tensor]]:
        """The end of the way from ``noise``, and the latents that each guided step previews; its
        push counts as a constant."""
        trajectory, latents, momentum = self.trajectory, noise, torch.zeros_like(noise)
        schedule, previews = trajectory.noise_schedule, list[Tensor]()
        for visit in trajectory.way:
            index, level = visit.index, schedule.levels[visit.index]
            predicted = self._predicted(latents, index)
            if index >= len(schedule) - self.options.guided_steps and bool(strengths.any()):
                share = (1 - schedule.path.alpha(level)) ** 0.5
                previews.append(preview(schedule.path, latents, predicted, level).detach())
                momentum = momentum + unit_l1(self._penalised(previews[-1], share, iteration))
                predicted = predicted + spread(strengths, latents) * self.options.push * share * momentum.sign()
            latents = trajectory.moved(visit, latents, predicted)
        return latents, previews

    def views(self, previews: Sequence[Tensor], iteration: int) -> Sequence[View]:
        """For each of ``previews`` a view of an image: half of it and half of what the preview
        shows, shrunk and padded.

        None of them is the image as it is, so margins are those of the first.
        """
        with torch.no_grad():
            return [
                partial(self._half_way, self.shown(each), iteration, number) for number, each in enumerate(previews)
            ]

    def _half_way(self, other: Tensor, iteration: int, number: int, images: Tensor) -> Tensor:
        key = self.given.key
        return _SHRUNK((images + other) / 2, [generator(key.seed, id, iteration, number, "half way") for id in key.ids])

    def _predicted(self, latents: Tensor, index: int) -> Tensor:
        def predicted(latents: Tensor) -> Tensor:
            return guided_prediction(self.backbone, self.trajectory, latents, index)[0]

        if torch.is_grad_enabled() and latents.requires_grad:
            return checkpoint(predicted, latents, use_reentrant=False)  # type: ignore[return-value]
        return predicted(latents)

    def _penalised(self, clean: Tensor, share: float, iteration: int) -> Tensor:
        """A multiple of the penalty's gradient at noisy latents: of what they preview, ``clean``,
        and of a ``share`` of the image's latents the surrogates see a mixture, decoded."""
        mixed = (share * self.encoded + (1 - share) * clean).requires_grad_()
        with torch.enable_grad():
            shown = self.shown(mixed)
        fused = self.options.rule()(self.given.surrogates.at(iteration), shown.detach())
        return torch.autograd.grad(shown, mixed, fused.direction)[0]


@torch.no_grad()
def prepare_memorised(options: APA, given: EditInput) -> Memorised:
    """APA with ``options`` on ``given``: the images learned by heart, and mapped to noise."""
    backbone, text = given.backbone, given.backbone.embed(given.prompts)
    encoded = backbone.encode(given.images)
    layers, memory = {}, None
    if options.memory_steps:
        assert isinstance(backbone, Projecting)
        learning = Memorising(
            options.memory_rank, options.memory_steps, options.memory_rate, options.memory_decay, options.noise_offset
        )
        layers, memory = backbone.projections(), memorised(backbone, encoded, text, given.key, learning)
    own = changed(backbone, memory, layers)
    schedule = backbone.noise_schedule(options.schedule_steps, options.way, size_of(given.images))
    empty = backbone.embed([""] * len(encoded))
    stored = invert(own, schedule, encoded, text, "aligned")
    if options.reconstruction == "offset":
        trajectory = Offset()(own, schedule, stored, text, empty, options.guidance)
    else:
        trajectory = Trajectory(schedule, stored[0], text, (empty,) * len(schedule), None, options.guidance)
    made = Memorised(given, options, trajectory, None, encoded, memory, layers)
    return made.regaining() if options.residual else made
