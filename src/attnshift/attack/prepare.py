"""Everything about a batch that stays constant while it is attacked: steps 1 to 4 of the algorithm.

Encode, invert, make the clean path reproduce the image, and record the clean branch once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.clean_path import Inversions, clean_path, compute_uncached
from attnshift.attack.interference import Subject, choose, observe_interference
from attnshift.attack.masks import make_masks, mask_sites, pixel_weights
from attnshift.attack.method import Method
from attnshift.attention.rows import at_drawn_rows
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import into_range
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.profiling import part, time_backward, timed
from attnshift.randomness import normal
from attnshift.recipes.schema import MaskSection
from attnshift.types import Branch, Goals, Interference, Observation, RandomKey, Site, TokenSpan

__all__ = ["PreparedBatch", "Task", "prepare_batch"]


@dataclass(frozen=True)
class Task:
    """One image to attack: ``image`` [3,side,side] in [0,1]. ``identity`` names its random draws.

    ``mask`` [1,side,side] in [0,1] says where its object is, for recipes whose mask is given. ``target`` is the class
    that it shall be seen as, absent in an untargeted attack; either all images of a batch have one or none has.
    """

    identity: str
    image: Tensor
    label: int
    class_name: str
    mask: Tensor | None = None
    target: int | None = None


@dataclass(frozen=True)
class PreparedBatch:
    """A batch of tasks, prepared. ``rows`` keeps some of its images."""

    method: Method
    backbone: Backbone
    surrogates: Surrogates
    identities: tuple[str, ...]
    images: Tensor
    tokens: tuple[TokenSpan, ...]
    trajectory: Trajectory
    sites: tuple[Site, ...]
    """What the objective reads of every pass of the attack."""
    clean: Branch
    interference: Interference | None
    masks: Tensor | None
    weights: Tensor
    residual: Tensor | None
    """What the clean path loses of the image, added to every decoded image; absent where the recipe says so."""
    round_trip: Tensor
    """Images through the autoencoder and back, a control arm."""

    def render(self, latents: Tensor, sites: Sequence[Site] = ()) -> Branch:
        """Denoise and decode latents at the start level."""
        recipe = self.method.recipe
        checkpointing, steps = recipe.diffusion.checkpointing, recipe.diffusion.gradient_steps
        with part("denoising"):
            final, attention = denoise(self.backbone, self.trajectory, latents, sites, checkpointing, steps)
        with part("decoder"):
            images = self.backbone.decode(final, checkpointing)
        time_backward("decoder", images)
        time_backward("denoising", final, *(each for maps in attention.values() for each in maps))
        time_backward(None, latents)
        if self.residual is not None:
            images = images + self.residual
        return Branch(final, _pasted(recipe.mask, self.masks, self.images, into_range(images)), attention)

    def surrogates_at(self, iteration: int) -> Surrogates:
        """The surrogates with what they are shown in ``iteration``, which counts from 0."""
        views = self.method.expectation.views(self._key(iteration))
        if self.method.recipe.classification.space == "image":
            return replace(self.surrogates, views=views)
        return replace(self.surrogates, views=views, show=lambda latents: self.render(latents).images)

    def observe(self, branch: Branch, iteration: int) -> Observation:
        """What the terms see of ``branch`` in ``iteration``, which counts from 0."""
        recipe, key = self.method.recipe, self._key(iteration)
        return Observation(
            self.images,
            at_drawn_rows(self.clean, key),
            at_drawn_rows(branch, key),
            self.tokens,
            (iteration + 1) / recipe.optimiser.iterations,
            key,
            self.weights,
            self.interference,
        )

    def _key(self, iteration: int) -> RandomKey:
        return RandomKey(self.method.recipe.seed, self.identities, iteration)

    def rows(self, keep: Tensor) -> PreparedBatch:
        clean = Branch(
            self.clean.latents[keep],
            self.clean.images[keep],
            {site: tuple(maps[keep] for maps in steps) for site, steps in self.clean.attention.items()},
        )
        return replace(
            self,
            surrogates=self.surrogates.rows(keep),
            identities=tuple(self.identities[int(at)] for at in keep),
            images=self.images[keep],
            tokens=tuple(self.tokens[int(at)] for at in keep),
            trajectory=self.trajectory.rows(keep),
            clean=clean,
            interference=None if self.interference is None else self.interference.rows(keep),
            masks=None if self.masks is None else self.masks[keep],
            weights=self.weights[keep],
            residual=None if self.residual is None else self.residual[keep],
            round_trip=self.round_trip[keep],
        )


@part("preparation")
@torch.no_grad()
def prepare_batch(
    method: Method,
    backbone: Backbone,
    classifiers: Sequence[Classifier],
    tasks: Sequence[Task],
    inversions: Inversions = compute_uncached,
) -> PreparedBatch:
    """Prepare ``tasks`` (images of one size) for the attack that ``method`` describes."""
    recipe = method.recipe
    images = torch.stack([task.image for task in tasks]).to(backbone.device)
    goals = Goals.of([task.label for task in tasks], [task.target for task in tasks], backbone.device)
    subjects = [Subject(task.identity, task.label, task.class_name, task.target) for task in tasks]
    choices = choose(recipe, backbone, classifiers, images, subjects) if method.reads_interference else ()
    if choices:
        goals = replace(goals, interference=goals.labels.new_tensor([choice.label for choice in choices]))
    phrases = [choice.phrase for choice in choices] or [""] * len(tasks)
    prompts = [recipe.prompt.prompt(task.class_name, phrase) for task, phrase in zip(tasks, phrases, strict=True)]
    tokens = tuple(
        backbone.locate(prompt.text, task.class_name, prompt.start) for prompt, task in zip(prompts, tasks, strict=True)
    )
    latents = _encode(method, backbone, images, tasks)
    text, empty = backbone.embed([prompt.text for prompt in prompts]), backbone.embed([""] * len(tasks))
    stored, trajectory = clean_path(method, backbone, latents, text, empty, inversions)
    sites = method.objective.sites(backbone.sites(images.shape[-1]), latents.shape[-1])
    interference = None
    if choices:
        interference, spoken = observe_interference(
            recipe, backbone, trajectory.noise_schedule, stored, subjects, choices, sites
        )
        trajectory = replace(trajectory, interference=spoken)
    # The same sites as in the attack: a recorded layer rounds otherwise than a fused one, and at iteration 0 the two
    # branches shall be one.
    running = tuple(site for site in sites if site.view != "reference")
    final, attention = denoise(backbone, trajectory, trajectory.start, running)
    decoded = backbone.decode(final)
    residual = images - decoded if recipe.diffusion.residual else None
    masks = _masks(method, backbone, trajectory, tokens, classifiers, images, tasks)
    return PreparedBatch(
        method=method,
        backbone=backbone,
        surrogates=Surrogates(timed(classifiers), method.criterion, goals),
        identities=tuple(task.identity for task in tasks),
        images=images,
        tokens=tokens,
        trajectory=trajectory,
        sites=running,
        clean=Branch(
            final,
            _pasted(recipe.mask, masks, images, (decoded if residual is None else decoded + residual).clamp(0, 1)),
            {site: maps for site, maps in attention.items() if site.kind == "self"},
        ),
        interference=interference,
        masks=masks,
        weights=pixel_weights(recipe.mask, masks, images),
        residual=residual,
        round_trip=backbone.decode(latents).clamp(0, 1),
    )


def _pasted(section: MaskSection, masks: Tensor | None, images: Tensor, changed: Tensor) -> Tensor:
    """``changed`` with the pixels outside the mask from ``images``, where the recipe asks for that."""
    return torch.lerp(images, changed, masks) if section.paste_back and masks is not None else changed


def _encode(method: Method, backbone: Backbone, images: Tensor, tasks: Sequence[Task]) -> Tensor:
    latents = backbone.encode(images)
    if method.recipe.diffusion.encoding == "mean":
        return latents
    draws = [normal(tuple(latents.shape[1:]), method.recipe.seed, task.identity, "encoding") for task in tasks]
    return backbone.encode(images, torch.stack(draws).to(latents))


def _masks(
    method: Method,
    backbone: Backbone,
    trajectory: Trajectory,
    tokens: Sequence[TokenSpan],
    classifiers: Sequence[Classifier],
    images: Tensor,
    tasks: Sequence[Task],
) -> Tensor | None:
    section, latents = method.recipe.mask, trajectory.start
    sites = mask_sites(section, backbone.sites(images.shape[-1]), latents.shape[-1])
    _, attention = denoise(backbone, trajectory, latents, sites) if sites else (latents, {})
    labels = torch.tensor([task.label for task in tasks], device=backbone.device)
    return make_masks(section, attention, tokens, classifiers, images, labels, [task.mask for task in tasks])
