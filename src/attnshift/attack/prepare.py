"""All that stays constant while a batch is attacked: steps 1 to 4 of the algorithm.

Encode, invert, make the clean path reproduce the image, and record the clean branch once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnshift.attack.clean_path import Inversions, clean_path, compute_uncached
from attnshift.attack.interference import Subject, choose, locate_class, observe_interference
from attnshift.attack.masks import make_masks, mask_sites, pixel_weights
from attnshift.attack.method import Method
from attnshift.attack.path import boundary_of, check_sites, laid_out, levels_at, over_looks
from attnshift.attack.rendering import Background, Renderer
from attnshift.attack.timing import timed_method
from attnshift.attention.projections import at_drawn_rows
from attnshift.batching import batch_record, constant, per_image
from attnshift.classifiers.classifier import Classifier
from attnshift.diffusion.backbone import Backbone
from attnshift.diffusion.conditioning import Conditioning
from attnshift.diffusion.denoising import Trajectory, denoise
from attnshift.ensemble.surrogates import Surrogates
from attnshift.profiling import part
from attnshift.randomness import normal_like
from attnshift.recipes.prompts import Caption
from attnshift.sizes import Size, size_of
from attnshift.types import Branch, Goals, Interference, Observation, RandomKey, Site, TokenSpan

__all__ = ["Observer", "PreparedBatch", "Task", "prepare_batch"]


@dataclass(frozen=True)
class Task:
    """One image to attack: ``image`` [3,height,width] in [0,1]. ``id`` names its random draws.

    ``mask`` [1,height,width] in [0,1] says where its object is, for recipes whose mask is given.
    ``target`` is the class that it shall be seen as, absent in an untargeted attack; either all
    images of a batch have one or none has.
    """

    id: str
    image: Tensor
    label: int
    class_name: str
    mask: Tensor | None = None
    target: int | None = None
    uncropped: Size | None = None
    """Size of the image before its centre was cropped; None where nothing was."""
    caption: Caption | None = None
    """Prompt of the image's own; None where the recipe's template makes one."""


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

    def render_at(self, iteration: int, shares: Tensor | None = None) -> Renderer:
        """The renderer of ``iteration``, which counts from 0; ``shares`` [batch] are those of the
        pull towards the boundary."""
        levels = levels_at(self.method.recipe, replace(self.key, iteration=iteration))
        return self.render.pushed(shares).looking(levels, self.method.recipe.path.looks_ahead)

    def surrogates_at(self, iteration: int, render: Renderer | None = None) -> Surrogates:
        """The surrogates with the views of ``iteration``, which counts from 0, of what ``render``
        shows: the end of the path by default."""
        render = render or self.render
        views = self.method.expectation.views(replace(self.key, iteration=iteration))
        surrogates = replace(self.surrogates.at(iteration), views=views)
        if self.method.recipe.classification.space == "latent":
            surrogates = replace(surrogates, show=lambda latents: render(latents).seen)
        return over_looks(surrogates, self.method.recipe.path.look_ahead) if render.ahead else surrogates


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
    subjects = [Subject(task.id, task.label, task.class_name, task.target, task.caption) for task in tasks]
    choices = choose(recipe, backbone, classifiers, images, subjects) if method.reads_interference else ()
    if choices:
        goals = replace(goals, interference=goals.labels.new_tensor([choice.label for choice in choices]))
    phrases = [choice.phrase for choice in choices] or [""] * len(tasks)
    prompts = [
        recipe.prompt.prompt(task.class_name, phrase, task.caption) for task, phrase in zip(tasks, phrases, strict=True)
    ]
    tokens = tuple(locate_class(backbone, prompt, recipe.prompt.stream) for prompt in prompts)
    latents = _encode(method, backbone, images, tasks)
    text, empty = backbone.embed([prompt.text for prompt in prompts]), backbone.embed([""] * len(tasks))
    stored, trajectory = clean_path(method, backbone, size_of(images), latents, text, empty, inversions)
    key = RandomKey(recipe.seed, tuple(task.id for task in tasks), 0)
    trajectory = laid_out(recipe.path, backbone, trajectory, stored, key)
    sites = method.objective.sites(backbone.sites(size_of(images)), size_of(latents))
    check_sites(recipe, sites)
    interference = None
    if choices:
        interference, interference_text = observe_interference(
            recipe, backbone, trajectory.noise_schedule, stored, subjects, choices, sites
        )
        trajectory = replace(trajectory, interference=interference_text)
    backbone.release_texts()
    # The same sites as in the attack: a recorded layer rounds otherwise than a fused one, and at
    # iteration 0 the two branches shall be one.
    running = tuple(site for site in sites if site.view != "reference")
    final, attention = denoise(backbone, trajectory, trajectory.start, running)
    decoded = backbone.decode(final)
    residual = images - decoded if recipe.diffusion.residual else None
    masks = _masks(method, backbone, trajectory, tokens, classifiers, images, tasks)
    background = Background(images, masks) if recipe.mask.paste_back and masks is not None else None
    shown = (decoded if residual is None else decoded + residual).clamp(0, 1)
    clean = Branch(
        final,
        shown if background is None else background.behind(shown),
        {site: maps for site, maps in attention.items() if site.kind == "self"},
    )
    joint = [recipe.path.joint_prompt(task.class_name, phrase) for task, phrase in zip(tasks, phrases, strict=True)]
    render = Renderer(
        backbone,
        trajectory,
        residual,
        background,
        recipe.diffusion.checkpointing,
        recipe.diffusion.gradient_steps,
        decode=backbone.decode if method.stand_in is None else method.stand_in.behind(backbone),
        boundary=boundary_of(recipe.path, backbone, [prompt.text for prompt in joint], empty),
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
    sites = mask_sites(section, backbone.sites(size_of(images)), size_of(latents))
    _, attention = denoise(backbone, trajectory, latents, sites) if sites else (latents, {})
    labels = torch.tensor([task.label for task in tasks], device=backbone.device)
    return make_masks(section, attention, tokens, classifiers, images, labels, [task.mask for task in tasks])
