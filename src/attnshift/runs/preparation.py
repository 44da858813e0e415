"""Before an attack: load everything, fix the plan, and refuse whatever could stop it later. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from attnshift.attack.interference import Subject, check_choice, class_of, vocabulary
from attnshift.attack.masks import mask_sites
from attnshift.attack.method import Method
from attnshift.attack.problem import Task
from attnshift.attack.recipe import Recipe
from attnshift.classifiers.classifier import Classifier
from attnshift.classifiers.gradcam import grad_cam
from attnshift.data.datasets import Item, read_folder
from attnshift.data.images import read_image, read_mask
from attnshift.defences.names import load_surrogate
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import ModelError, UserError
from attnshift.runs.spec import RunSpec, items_digest
from attnshift.types import Draws, Goals

__all__ = [
    "Inputs",
    "Prepared",
    "Settings",
    "check",
    "check_settings",
    "check_surrogates",
    "examples",
    "prepare",
    "read_task",
    "settings_with",
]


@dataclass(frozen=True)
class Inputs:
    """What the command line decides about every attack. ``size`` and ``batch`` of 0 mean: what the pipeline suggests.

    ``target`` is the class that every image shall be seen as, by number or name.
    """

    images: Path
    labels: Path
    pipeline: str
    surrogates: tuple[str, ...]
    size: int = 0
    batch: int = 0
    limit: int = 0
    device: str = "cpu"
    threads: int = 0
    masks: Path | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(Inputs):
    """A single attack: its recipe, and the run folder."""

    recipe: Recipe
    out: Path


@dataclass(frozen=True)
class Prepared:
    """An attack that can start: what was loaded for ``spec``. ``classifiers`` are its surrogates, in order."""

    method: Method
    backbone: Backbone
    classifiers: Sequence[Classifier]
    items: Sequence[Item]
    spec: RunSpec


def settings_with(inputs: Inputs, recipe: Recipe, out: Path) -> Settings:
    """The single attack on ``inputs``, which may belong to more than that."""
    return Settings(**{each.name: getattr(inputs, each.name) for each in fields(Inputs)}, recipe=recipe, out=out)


def prepare(settings: Settings) -> Prepared:
    """Load what ``settings`` name and check that the attack can be carried out; sets the number of CPU threads."""
    check_settings(settings)
    method = Method.of(settings.recipe)
    classifiers = [load_surrogate(name).to(settings.device) for name in settings.surrogates]
    items = read_folder(
        settings.images, settings.labels, *_classes(classifiers), settings.limit, settings.masks, settings.target
    )
    backbone: Backbone = load_pipeline(settings.pipeline).to(settings.device)
    size = settings.size or backbone.suggested_size
    torch.set_num_threads(settings.threads or _usual_threads(settings.device, size))
    check(method, backbone, classifiers, items, size)
    spec = RunSpec(
        images=str(settings.images),
        labels=str(settings.labels),
        items=items_digest(items),
        pipeline=settings.pipeline,
        surrogates=settings.surrogates,
        size=size,
        # Eight images of 64 px at a time, and one from about 192 px on.
        batch=settings.batch or max(1, 8 * 64 * 64 // (size * size)),
        device=settings.device,
        threads=torch.get_num_threads(),
        recipe=settings.recipe,
    )
    return Prepared(method, backbone, classifiers, items, spec)


def read_task(item: Item, size: int) -> Task:
    """What the attack is to do with ``item``, its image and its mask read at ``size``."""
    mask = None if item.mask is None else read_mask(item.mask, size)
    return Task(item.identity, read_image(item.path, size), item.label, item.class_name, mask, item.target)


def examples(items: Sequence[Item]) -> list[Item]:
    """One of ``items`` for each way in which a recipe can meet them: through classes and targets alone."""
    return list({(item.label, item.class_name, item.target): item for item in items}.values())


def check_surrogates(inputs: Inputs) -> None:
    if not inputs.surrogates:
        raise UserError("no classifier to attack; give at least one --surrogate, such as --surrogate timm:resnet50")


def check_settings(settings: Settings) -> None:
    """Refuse numbers, devices and masks that cannot be meant, before anything is loaded."""
    check_surrogates(settings)
    _check_options(settings)
    _check_masks(settings.recipe, settings.masks)


@torch.no_grad()
def check(
    method: Method, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: int
) -> None:
    """Everything that could stop the run later: sizes, sites, names, images, and what a recipe asks of them."""
    backbone.check_size(size)
    method.objective.sites(backbone.sites(size), backbone.latent_side(size))
    diffusion = method.recipe.diffusion
    backbone.ladder(diffusion.schedule_steps, diffusion.denoising_steps)
    mask_sites(method.recipe.mask, backbone.sites(size), backbone.latent_side(size))
    for name in sorted({item.class_name for item in items}):
        prompt = method.recipe.prompt.prompt(name)
        backbone.locate(prompt.text, name, prompt.start)
    probe = torch.full((1, 3, size, size), 0.5, device=backbone.device)
    if method.recipe.mask.source == "gradcam":
        for classifier in classifiers:
            grad_cam(classifier, probe, torch.zeros(1, dtype=torch.long, device=backbone.device))
    _check_fusion(method, classifiers, items[0], probe)
    if method.reads_interference:
        check_choice(method.recipe, backbone, vocabulary(classifiers), [_subject(item) for item in items])
    for item in items:
        read_task(item, size)


def _check_options(settings: Settings) -> None:
    for name, lowest, highest in (("size", 8, 4096), ("batch", 1, 4096), ("threads", 1, 1024), ("limit", 1, 10**9)):
        value = getattr(settings, name)
        if value and not lowest <= value <= highest:
            raise UserError(f"--{name} is {value}; it must lie between {lowest} and {highest}")
    twice = sorted({name for name in settings.surrogates if settings.surrogates.count(name) > 1})
    if twice:
        raise UserError(f"--surrogate {twice[0]} is given twice and would count twice; give it once")
    try:
        torch.empty(0, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {settings.device} cannot be used ({reason}); use cpu or cuda") from None


def _check_masks(recipe: Recipe, masks: Path | None) -> None:
    wanted = recipe.mask.source == "given"
    if wanted and masks is None:
        raise UserError("the recipe's mask.source is 'given' but no masks are; give --masks FOLDER")
    if masks is not None and not wanted:
        raise UserError(f"--masks {masks} has no use: set mask.source=given, or leave it out")


def _usual_threads(device: str, size: int) -> int:
    """One thread for small images: a second one saves them little, and on a busy machine the first waits for it."""
    return 1 if device == "cpu" and size <= 96 else torch.get_num_threads()


def _classes(classifiers: Sequence[Classifier]) -> tuple[tuple[str, ...], int]:
    counts = {classifier.name: classifier.classes for classifier in classifiers}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ModelError(f"the surrogates do not have the same classes: {listed}")
    return vocabulary(classifiers), classifiers[0].classes


def _check_fusion(method: Method, classifiers: Sequence[Classifier], item: Item, probe: Tensor) -> None:
    """Let criterion, views and fusion rule say at once what they cannot work with; all items have a target, or none."""
    goals = Goals.of([item.label], [item.target], probe.device)
    if method.reads_interference:
        given = method.recipe.interference.choose == "given"
        label = class_of(method.recipe.interference.phrase, vocabulary(classifiers)) if given else 0
        goals = replace(goals, interference=torch.full_like(goals.labels, label))
    views = method.expectation.views(Draws(method.recipe.seed, (item.identity,), 0))
    method.rule(Surrogates(classifiers, method.criterion, goals, views=views), probe)


def _subject(item: Item) -> Subject:
    return Subject(item.identity, item.label, item.class_name, item.target)
