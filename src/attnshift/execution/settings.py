"""Settings of an attack, and what can be said against them before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from attnshift.attack.inputs import check_device
from attnshift.attack.method import check_guidance
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.diffusion import is_flow, takes_guidance
from attnshift.errors import UserError
from attnshift.execution.early import check_numbers, check_surrogates
from attnshift.recipes.reading import baseline_of
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.sizes import Size

__all__ = [
    "AttackSettings",
    "Inputs",
    "check_settings",
    "settings_checks",
    "settings_with",
    "usual_threads",
    "wants_masks",
]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Input of every attack. ``size`` and ``batch`` of 0 stand for what the pipeline suggests.

    ``size`` is the side of the square images in pixels, the text WIDTHxHEIGHT, or "keep": each
    image whole, at the size nearest to its own that fits the pipeline.

    ``target`` is the class that every image shall be seen as, by number or name, or "nearest" or
    "random" (``execution/targets.py``). Strings become paths, and a list of surrogates a tuple.
    """

    images: str | Path
    labels: Path | None = None
    pipeline: str = "lab"
    surrogates: tuple[str, ...] = ()
    size: int | str = 0
    batch: int = 0
    limit: int = 0
    device: str = "cpu"
    threads: int = 0
    masks: Path | None = None
    target: str | None = None
    precision: str = "float32"
    captions: bool = False
    """Prompt each image by the caption that its source states, in which its class is named."""
    accept_labels: bool = False
    """Attack although names or the surrogates' answers
    to the clean images speak against the labels."""
    accept_pipeline: bool = False
    """Attack although the measures of the pipeline on the clean images speak against it."""
    cache: Path | None = None
    """Folder that keeps inversions for other runs on the same images; None keeps none."""

    def __post_init__(self) -> None:
        if isinstance(self.surrogates, str):
            raise UserError(f"`surrogates` is the text '{self.surrogates}'; give a list, such as ['timm:resnet50']")
        object.__setattr__(self, "surrogates", tuple(self.surrogates))
        for name in ("labels", "masks", "cache", "out"):
            if isinstance(given := getattr(self, name, None), str):
                object.__setattr__(self, name, Path(given))

    @property
    def labelled_by(self) -> str:
        """Source of the labels, for messages."""
        return str(self.labels or self.images)


@dataclass(frozen=True, kw_only=True)
class AttackSettings(Inputs):
    """A single attack: its recipe, and the run folder."""

    recipe: Recipe | BaselineRecipe
    out: Path


def settings_with(inputs: Inputs, recipe: Recipe | BaselineRecipe, out: Path) -> AttackSettings:
    """Return the settings of a single attack on ``inputs``."""
    return AttackSettings(**{each.name: getattr(inputs, each.name) for each in fields(Inputs)}, recipe=recipe, out=out)


def check_settings(settings: AttackSettings) -> None:
    """Refuse impossible numbers, devices and masks, before anything is loaded."""
    for check in settings_checks(settings):
        check()
    check_device(settings.device)


def settings_checks(settings: AttackSettings) -> Iterator[Callable[[], None]]:
    """Checks of ``settings`` but for the device; each raises ``UserError``."""
    yield lambda: _check_recipe(settings.recipe)
    yield lambda: check_numbers(vars(settings))
    yield lambda: check_surrogates(settings.surrogates)
    yield lambda: _check_masks(settings.recipe, settings.masks)
    yield lambda: _check_guidance(settings.recipe, settings.pipeline)
    yield lambda: _check_path(settings.recipe, settings.pipeline)


def wants_masks(recipe: Recipe | BaselineRecipe) -> bool:
    return isinstance(recipe, Recipe) and recipe.mask.source == "given"


def usual_threads(device: str, size: Size | None) -> int:
    """Return one thread for small images: a second saves little,
    and on a busy machine the first waits for it."""
    return 1 if device == "cpu" and size is not None and size.area <= 96 * 96 else torch.get_num_threads()


def _check_recipe(recipe: object) -> None:
    if isinstance(recipe, str):
        raise UserError(f"`recipe` is the text '{recipe}'; give load_recipe('{recipe}')")


def _check_guidance(recipe: Recipe | BaselineRecipe, pipeline: str) -> None:
    if isinstance(recipe, Recipe):
        check_guidance(recipe, pipeline, takes_guidance(pipeline))


def _check_path(recipe: Recipe | BaselineRecipe, pipeline: str) -> None:
    if isinstance(recipe, BaselineRecipe):
        attack = baseline_of(recipe)
        if isinstance(attack, DiffusionBaseline):
            attack.check_path(pipeline, is_flow(pipeline))


def _check_masks(recipe: Recipe | BaselineRecipe, masks: Path | None) -> None:
    wanted = wants_masks(recipe)
    if wanted and masks is None:
        raise UserError("the recipe's mask.source is 'given' but no masks are; set `masks` to their folder")
    if masks is not None and not wanted:
        raise UserError(f"`masks` is {masks}, which this recipe does not read; set mask.source=given, or leave it out")
