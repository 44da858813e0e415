"""Everything about a batch that stays constant while it is attacked: steps 1 to 4 of the algorithm.

Encode, invert, make the clean path reproduce the image, and record the clean branch once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.method import Method
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.diffusion.inversion import invert
from attnshift.ensemble.surrogates import Surrogates
from attnshift.randomness import normal
from attnshift.types import Branch, Site, TokenSpan

__all__ = ["Problem", "Task", "pose"]


@dataclass(frozen=True)
class Task:
    """One image to attack: ``image`` [3,side,side] in [0,1]. ``identity`` names its random draws."""

    identity: str
    image: Tensor
    label: int
    class_name: str


@dataclass(frozen=True)
class Problem:
    """A batch of tasks, prepared. ``rows`` keeps some of its images."""

    method: Method
    backbone: Backbone
    surrogates: Surrogates
    images: Tensor
    tokens: tuple[TokenSpan, ...]
    trajectory: Trajectory
    sites: tuple[Site, ...]
    clean: Branch
    residual: Tensor | None
    """What the clean path loses of the image, added to every decoded image; absent where the recipe says so."""
    round_trip: Tensor
    """Images through the autoencoder and back, a control arm."""

    def render(self, latents: Tensor, sites: Sequence[Site] = ()) -> Branch:
        """Denoise and decode latents at the start level."""
        checkpointing = self.method.recipe.diffusion.checkpointing
        final, attention = denoise(self.backbone, self.trajectory, latents, sites, checkpointing)
        decoded = self.backbone.decode(final)
        if self.residual is not None:
            decoded = decoded + self.residual
        return Branch(final, decoded.clamp(0, 1), attention)

    def rows(self, keep: Tensor) -> Problem:
        clean = Branch(
            self.clean.latents[keep],
            self.clean.images[keep],
            {site: tuple(maps[keep] for maps in steps) for site, steps in self.clean.attention.items()},
        )
        return replace(
            self,
            surrogates=self.surrogates.rows(keep),
            images=self.images[keep],
            tokens=tuple(self.tokens[int(at)] for at in keep),
            trajectory=self.trajectory.rows(keep),
            clean=clean,
            residual=None if self.residual is None else self.residual[keep],
            round_trip=self.round_trip[keep],
        )


@torch.no_grad()
def pose(method: Method, backbone: Backbone, classifiers: Sequence[Classifier], tasks: Sequence[Task]) -> Problem:
    """Prepare ``tasks`` (images of one size) for the attack that ``method`` describes."""
    recipe = method.recipe
    images = torch.stack([task.image for task in tasks]).to(backbone.device)
    labels = torch.tensor([task.label for task in tasks], device=backbone.device)
    prompts = [recipe.prompt.prompt(task.class_name) for task in tasks]
    tokens = tuple(backbone.locate(prompt, task.class_name) for prompt, task in zip(prompts, tasks, strict=True))
    latents = backbone.encode(images)
    if recipe.diffusion.encoding == "sample":
        draws = [normal(tuple(latents.shape[1:]), recipe.seed, task.identity, "encoding") for task in tasks]
        latents = backbone.encode(images, torch.stack(draws).to(latents))
    round_trip = backbone.decode(latents).clamp(0, 1)
    ladder = backbone.ladder(recipe.diffusion.schedule_steps, recipe.diffusion.denoising_steps)
    text, empty = backbone.embed(prompts), backbone.embed([""] * len(tasks))
    stored = invert(backbone, ladder, latents, empty, recipe.diffusion.pairing, recipe.diffusion.inversion_rounds)
    with torch.enable_grad():
        trajectory = method.reconstruction(backbone, ladder, stored, text, empty, recipe.diffusion.guidance)
    sites = method.objective.sites(backbone.sites(images.shape[-1]), latents.shape[-1])
    final, attention = denoise(backbone, trajectory, trajectory.start, sites)
    decoded = backbone.decode(final)
    residual = images - decoded if recipe.diffusion.residual else None
    clean = Branch(final, (decoded if residual is None else decoded + residual).clamp(0, 1), attention)
    surrogates = Surrogates(classifiers, method.criterion, labels)
    return Problem(method, backbone, surrogates, images, tokens, trajectory, sites, clean, residual, round_trip)
