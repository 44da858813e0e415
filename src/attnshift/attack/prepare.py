"""All that stays constant while a batch is attacked: steps 1 to 4 of the algorithm.

Encode, invert, make the clean path reproduce the image, and record the clean branch once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.clean_path import Inversions, clean_path, compute_uncached
from attnshift.attack.interference import Subject, choose, observe_interference
from attnshift.attack.masks import make_masks, mask_sites, pixel_weights
from attnshift.attack.method import Method
from attnshift.attack.timing import timed_method
from attnshift.attention.projections import at_drawn_rows
from attnshift.batching import batch_record, constant, per_image
from attnshift.classifiers.classifier import Classifier
from attnshift.data.images import into_range
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.profiling import part
from attnshift.randomness import normal_like
from attnshift.types import AttentionMaps, Branch, Goals, Interference, Observation, RandomKey, Site, TokenSpan

__all__ = ["Background", "Observer", "PreparedBatch", "Renderer", "Task", "prepare_batch"]


@dataclass(frozen=True)
class Task:
    """One image to attack: ``image`` [3,side,side] in [0,1]. ``id`` names its random draws.

    ``mask`` [1,side,side] in [0,1] says where its object is, for recipes whose mask is given.
    ``target`` is the class that it shall be seen as, absent in an untargeted attack; either all
    images of a batch have one or none has.
    """

    id: str
    image: Tensor
    label: int
    class_name: str
    mask: Tensor | None = None
    target: int | None = None
    uncropped: tuple[int, int] | None = None
    """Width and height of the image before its centre was cropped; None where it was square."""


@batch_record
class Background:
    """The pixels outside the masks, which an attack with ``paste_back`` leaves as they are.

    images [batch,3,height,width]; masks [batch,1,height,width] in [0,1].
    """

    images: Tensor = per_image()
    masks: Tensor = per_image()

    def behind(self, changed: Tensor) -> Tensor:
        """``changed`` [batch,3,height,width] inside the masks, the images outside of them."""
        return torch.lerp(self.images, changed, self.masks)


@batch_record
class Renderer:
    """All that turns latents at the start level into images."""

    backbone: Backbone = constant()
    trajectory: Trajectory = per_image()
    residual: Tensor | None = per_image()
    """The part of each image that the clean path loses, [batch,3,height,width]; it is added to
    every decoded image. None where the recipe says so."""
    background: Background | None = per_image()
    checkpointing: bool = constant()
    gradient_steps: int = constant()
    denoise: Callable[..., tuple[Tensor, AttentionMaps]] = constant(default=denoise)
    decode: Callable[[Tensor, bool], Tensor] = constant(kw_only=True)

    def __call__(self, latents: Tensor, sites: Sequence[Site] = (), added: Tensor | None = None) -> Branch:
        """Denoise and decode ``latents`` [batch,channels,rows,columns]; read the attention of
        ``sites``. Pixels ``added`` [batch,3,height,width] count to the decoded images."""
        final, attention = self.denoise(
            self.backbone, self.trajectory, latents, sites, self.checkpointing, self.gradient_steps
        )
        images = self.decode(final, self.checkpointing)
        if self.residual is not None:
            images = images + self.residual
        if added is not None:
            images = images + added
        images = into_range(images)
        return Branch(final, images if self.background is None else self.background.behind(images), attention)

    def still(self, images: Tensor) -> Renderer:
        """A renderer of latents that never move: it shows ``images`` [batch,3,height,width], which
        are theirs, and asks no network."""
        return replace(self, residual=images, denoise=_stay, decode=_nothing)


def _stay(backbone: Backbone, trajectory: Trajectory, latents: Tensor, *_: object) -> tuple[Tensor, AttentionMaps]:
    return latents, {}


def _nothing(final: Tensor, checkpointing: bool) -> Tensor:
    return final.new_zeros(1)


@batch_record
class Observer:
    """All that the terms observe, beside the attacked branch."""

    images: Tensor = per_image()
    clean: Branch = per_image()
    tokens: tuple[TokenSpan, ...] = per_image()
    weights: Tensor = per_image()
    interference: Interference | None = per_image()
    key: RandomKey = per_image()
    iterations: int = constant()
    sites: tuple[Site, ...] = constant()
    """The sites that the terms read in every pass of the attack."""
    draw: Callable[[Branch, RandomKey], Branch] = constant(default=at_drawn_rows)

    def __call__(self, branch: Branch, iteration: int) -> Observation:
        """The terms' view of ``branch`` in ``iteration``, which counts from 0."""
        key, progress = replace(self.key, iteration=iteration), (iteration + 1) / self.iterations
        clean, attacked = self.draw(self.clean, key), self.draw(branch, key)
        return Observation(self.images, clean, attacked, self.tokens, progress, key, self.weights, self.interference)


@batch_record
class PreparedBatch:
    """A batch of tasks, ready for the attack; ``select_rows`` keeps some of its images."""

    method: Method = constant()
    images: Tensor = per_image()
    key: RandomKey = per_image()
    """Names of the images' random draws; ``iteration`` is 0."""
    render: Renderer = per_image()
    observe: Observer = per_image()
    surrogates: Surrogates = per_image()
    masks: Tensor | None = per_image()
    """Masks of the objects, [batch,1,height,width] in [0,1]; None where the recipe asks for
    none."""
    stored: tuple[Tensor, ...] = per_image(depth=1)
    """Latents of the inversion, before each denoising step and after the last one."""
    empty: Conditioning = per_image()
    """The empty prompt."""
    round_trip: Tensor = per_image()
    """Images through the autoencoder and back, [batch,3,height,width]; a control arm."""

    def surrogates_at(self, iteration: int) -> Surrogates:
        """The surrogates with the views of ``iteration``, which counts from 0."""
        surrogates = self.surrogates.at(iteration)
        surrogates = replace(surrogates, views=self.method.expectation.views(replace(self.key, iteration=iteration)))
        if self.method.recipe.classification.space == "image":
            return surrogates
        return replace(surrogates, show=lambda latents: self.render(latents).images)


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
    method, recipe = timed_method(method), method.recipe
    images = torch.stack([task.image for task in tasks]).to(backbone.device)
    goals = Goals.of([task.label for task in tasks], [task.target for task in tasks], backbone.device)
    subjects = [Subject(task.id, task.label, task.class_name, task.target) for task in tasks]
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
        interference, interference_text = observe_interference(
            recipe, backbone, trajectory.noise_schedule, stored, subjects, choices, sites
        )
        trajectory = replace(trajectory, interference=interference_text)
    # The same sites as in the attack: a recorded layer rounds otherwise than a fused one, and at
    # iteration 0 the two branches shall be one.
    running = tuple(site for site in sites if site.view != "reference")
    final, attention = denoise(backbone, trajectory, trajectory.start, running)
    decoded = backbone.decode(final)
    residual = images - decoded if recipe.diffusion.residual else None
    masks = _masks(method, backbone, trajectory, tokens, classifiers, images, tasks)
    key = RandomKey(recipe.seed, tuple(task.id for task in tasks), 0)
    background = Background(images, masks) if recipe.mask.paste_back and masks is not None else None
    shown = (decoded if residual is None else decoded + residual).clamp(0, 1)
    clean = Branch(
        final,
        shown if background is None else background.behind(shown),
        {site: maps for site, maps in attention.items() if site.kind == "self"},
    )
    render = Renderer(
        backbone,
        trajectory,
        residual,
        background,
        recipe.diffusion.checkpointing,
        recipe.diffusion.gradient_steps,
        decode=backbone.decode if method.stand_in is None else method.stand_in.behind(backbone),
    )
    return PreparedBatch(
        method=method,
        images=images,
        key=key,
        render=render if recipe.optimiser.learning_rate else render.still(shown),
        observe=Observer(
            images,
            clean,
            tokens,
            pixel_weights(recipe.mask, masks, images),
            interference,
            key,
            recipe.optimiser.iterations,
            running,
        ),
        surrogates=method.surrogates(classifiers, goals, images, key),
        masks=masks,
        stored=stored,
        empty=empty,
        round_trip=backbone.decode(latents).clamp(0, 1),
    )


def _encode(method: Method, backbone: Backbone, images: Tensor, tasks: Sequence[Task]) -> Tensor:
    latents = backbone.encode(images)
    if method.recipe.diffusion.encoding == "mean":
        return latents
    return backbone.encode(images, normal_like(latents, method.recipe.seed, [task.id for task in tasks], "encoding"))


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
