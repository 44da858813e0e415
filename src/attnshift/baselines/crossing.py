"""The terms of NatADiff: joint prompt, gradient over views, and the wrong class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnshift.baselines.edits import EditInput
from attnshift.baselines.sampling import Sampled, preview, way_of
from attnshift.batching import batch_record, concatenated, constant, image_norms, per_image, spread
from attnshift.classifiers.classifier import vocabulary
from attnshift.classifiers.names import same_words
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import crossed, guided_prediction
from attnshift.diffusion.visits import Visit, visits
from attnshift.ensemble.expectation import Expectation, View
from attnshift.ensemble.surrogates import Surrogates
from attnshift.types import RandomKey

if TYPE_CHECKING:
    from attnshift.baselines.natadiff import NatADiff

__all__ = ["Crossing", "joint_prompts", "prepare_crossing", "wrong_classes"]

_GROWTH = 0.5
"""Growth of the terms from one try to the next, a share of the first."""


@batch_record
class Crossing(Sampled):
    """NatADiff on prepared images: an attempt is a try.

    ``wrong`` [batch] are the wrong classes, ``joint`` the joint prompts, embedded.
    """

    options: NatADiff = constant()
    wrong: Tensor = per_image()
    joint: Conditioning = per_image()

    @property
    def attempts(self) -> int:
        return self.options.tries

    def steering(self, strengths: Tensor, attempt: int) -> _Steered:
        options, start = self.options, self.trajectory.start
        grown = strengths * (1 + _GROWTH * attempt)
        unit = prod(start.shape[1:]) ** 0.5 if options.relative else 1.0
        return _Steered(self, (grown * options.boundary).clamp(max=1), grown * options.scale * unit, self.wrong)

    def over_views(self, visit: Visit) -> Surrogates:
        """The surrogates, each with its mean logits over the views of that visit."""
        surrogates, options = self.given.surrogates.at(visit.number), self.options
        expectation = Expectation(options.views, transforms=options.made_transforms())
        views = expectation.views(replace(self.given.key, iteration=visit.number))
        return replace(surrogates, classifiers=[_OverViews(each, views) for each in surrogates.classifiers])


class _OverViews:
    """A classifier whose logits are their mean over ``views``."""

    def __init__(self, classifier: Callable[..., Tensor], views: Sequence[View]):
        self._classifier, self._views = classifier, views

    def __call__(self, images: Tensor, *keys: RandomKey) -> Tensor:
        shown = torch.cat([view(images) for view in self._views])
        named = [replace(key, ids=key.ids * len(self._views)) for key in keys]
        return self._classifier(shown, *named).unflatten(0, (len(self._views), len(images))).mean(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._classifier, name)


@dataclass
class _Steered:
    """Sampling under a mixed score; ``boundary`` and ``scale`` are [batch]."""

    crossing: Crossing
    boundary: Tensor
    scale: Tensor
    aims: Tensor | None

    def prediction(self, latents: Tensor, visit: Visit) -> Tensor:
        options, backbone = self.crossing.options, self.crossing.given.backbone
        trajectory, crosses = self.crossing.trajectory, bool(self.boundary.any())
        steps = len(trajectory.noise_schedule)
        pulls = options.guided[0] <= visit.left / steps <= options.guided[1] and bool(self.scale.any())
        if not crosses and not pulls:
            return guided_prediction(backbone, trajectory, latents, visit.index)[0]
        texts = [trajectory.unconditional[visit.index]] + [self.crossing.joint] * crosses
        timestep = trajectory.noise_schedule.timesteps[visit.index]
        predicted = backbone.denoise(torch.cat([latents] * len(texts)), timestep, concatenated(texts)).output
        empty, *joint = predicted.chunk(len(texts))
        own, pull = self._own(latents, visit, pulls)
        boundary = spread(self.boundary, latents)
        mixed = empty + (1 - boundary) * options.guidance * (own - empty)
        for each in joint:
            mixed = crossed(mixed, self.boundary * options.joint_guidance, each, empty)
        return mixed if pull is None else mixed - pull

    def moved(self, latents: Tensor, prediction: Tensor, visit: Visit) -> Tensor:
        return latents

    def _own(self, latents: Tensor, visit: Visit, pulls: bool) -> tuple[Tensor, Tensor | None]:
        """The prediction under the image's own prompt, and the gradient's part of it."""
        crossing, trajectory = self.crossing, self.crossing.trajectory
        timestep = trajectory.noise_schedule.timesteps[visit.index]
        level, path = trajectory.noise_schedule.levels[visit.index], trajectory.noise_schedule.path
        points = latents.detach().requires_grad_()
        with torch.set_grad_enabled(pulls and crossing.options.gradient == "exact"):
            own = crossing.given.backbone.denoise(points, timestep, trajectory.text).output
        if not pulls:
            return own, None
        with torch.enable_grad():
            images = crossing.shown(preview(path, points, own, level))
        gradient = crossing.uphill(crossing.over_views(visit), points, images, crossing.wrong)
        lengths = self.scale * path.per_score(level) / image_norms(gradient).clamp(min=1e-30)
        return own.detach(), spread(lengths, latents) * gradient


def wrong_classes(options: NatADiff, given: EditInput, names: Sequence[str]) -> Tensor:
    """The targets, or the other class [batch] of the nearest prompt; ``names`` are those of all
    classes."""
    goals, backbone = given.surrogates.goals, given.backbone
    if goals.targets is not None:
        return goals.targets
    summaries = backbone.summarise([options.prompt(name) for name in names])
    cosines = summaries[goals.labels] @ summaries.T
    labels: list[int] = goals.labels.tolist()
    out = [[any(same_words(name, each) for each in ("", names[label])) for name in names] for label in labels]
    return cosines.masked_fill(torch.tensor(out, device=cosines.device), -torch.inf).argmax(1)


def joint_prompts(options: NatADiff, given: EditInput, wrong: Tensor, names: Sequence[str]) -> list[str]:
    """The joint prompt of each image; a ``ModelError`` where the backbone would cut it."""
    labels: list[int] = given.surrogates.goals.labels.tolist()
    prompts: list[str] = []
    for other, label in zip(wrong.tolist(), labels, strict=True):
        prompts.append(options.joint_prompt(names[int(other)], names[label]))
        given.backbone.locate(prompts[-1], names[label])
    return prompts


@torch.no_grad()
def prepare_crossing(options: NatADiff, given: EditInput) -> Crossing:
    """NatADiff with ``options`` on ``given``."""
    names = vocabulary(given.surrogates.classifiers)  # type: ignore[arg-type]
    wrong = wrong_classes(options, given, names)
    joint = given.backbone.embed(joint_prompts(options, given, wrong, names))
    planned = visits(options.way, options.passes, options.travelled)
    made = Crossing(given, options, way_of(options, given, planned), None, wrong, joint)
    return made.regaining() if options.residual and not options.generates else made
