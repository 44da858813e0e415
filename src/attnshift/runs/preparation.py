"""Before an attack: load everything, fix the plan, and refuse whatever could stop it later. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from attnshift.attack.interference import vocabulary
from attnshift.attack.problem import Task
from attnshift.attack.recipe import Recipe
from attnshift.classifiers.classifier import Classifier
from attnshift.data.datasets import Item, read_folder
from attnshift.data.images import read_image, read_mask
from attnshift.defences.names import load_surrogate
from attnshift.diffusion import load_pipeline
from attnshift.diffusion.backbone import Backbone
from attnshift.errors import ModelError, UserError
from attnshift.peers.recipe import PeerRecipe
from attnshift.runs.spec import RunSpec, items_digest
from attnshift.runs.work import Work, work_of

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
    "wants_masks",
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

    recipe: Recipe | PeerRecipe
    out: Path


@dataclass(frozen=True)
class Prepared:
    """An attack that can start: what was loaded for ``spec``. ``classifiers`` are its surrogates, in order."""

    work: Work
    backbone: Backbone
    classifiers: Sequence[Classifier]
    items: Sequence[Item]
    spec: RunSpec


def settings_with(inputs: Inputs, recipe: Recipe | PeerRecipe, out: Path) -> Settings:
    """The single attack on ``inputs``, which may belong to more than that."""
    return Settings(**{each.name: getattr(inputs, each.name) for each in fields(Inputs)}, recipe=recipe, out=out)


def prepare(settings: Settings) -> Prepared:
    """Load what ``settings`` name and check that the attack can be carried out; sets the number of CPU threads."""
    check_settings(settings)
    work = work_of(settings.recipe)
    classifiers = [load_surrogate(name).to(settings.device) for name in settings.surrogates]
    items = read_folder(
        settings.images, settings.labels, *_classes(classifiers), settings.limit, settings.masks, settings.target
    )
    backbone: Backbone = load_pipeline(settings.pipeline).to(settings.device)
    size = settings.size or backbone.suggested_size
    torch.set_num_threads(settings.threads or _usual_threads(settings.device, size))
    check(work, backbone, classifiers, items, size)
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
    return Prepared(work, backbone, classifiers, items, spec)


def read_task(item: Item, size: int) -> Task:
    """What the attack is to do with ``item``, its image and its mask read at ``size``."""
    mask = None if item.mask is None else read_mask(item.mask, size)
    return Task(item.identity, read_image(item.path, size), item.label, item.class_name, mask, item.target)


def examples(items: Sequence[Item]) -> list[Item]:
    """One of ``items`` for each way in which a recipe can meet them: through classes and targets alone."""
    return list({(item.label, item.class_name, item.target): item for item in items}.values())


def wants_masks(recipe: Recipe | PeerRecipe) -> bool:
    return isinstance(recipe, Recipe) and recipe.mask.source == "given"


def check_surrogates(inputs: Inputs) -> None:
    if not inputs.surrogates:
        raise UserError("no classifier to attack; give at least one --surrogate, such as --surrogate timm:resnet50")


def check_settings(settings: Settings) -> None:
    """Refuse numbers, devices and masks that cannot be meant, before anything is loaded."""
    check_surrogates(settings)
    _check_options(settings)
    _check_masks(settings.recipe, settings.masks)


def check(work: Work, backbone: Backbone, classifiers: Sequence[Classifier], items: Sequence[Item], size: int) -> None:
    """Everything that could stop the run later: sizes, sites, names, images, and what a recipe asks of them."""
    work.check(backbone, classifiers, items, size)
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


def _check_masks(recipe: Recipe | PeerRecipe, masks: Path | None) -> None:
    wanted = wants_masks(recipe)
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
