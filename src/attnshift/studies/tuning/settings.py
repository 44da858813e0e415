"""Settings of a study, the recipes that they allow, and checks before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from attnshift.attack.method import Method
from attnshift.errors import RecipeError, UserError
from attnshift.execution.early import check_surrogates
from attnshift.execution.settings import AttackSettings, Inputs, check_settings, settings_with
from attnshift.recipes.reading import load_latent_recipe
from attnshift.recipes.schema import Recipe
from attnshift.studies.tuning.search import Search, standing_values
from attnshift.studies.tuning_roles import check_tuning

__all__ = ["TuningSettings", "attack_settings", "check_study", "check_values", "recipe_with"]


@dataclass(frozen=True, kw_only=True)
class TuningSettings(Inputs):
    """Settings of a study.

    ``preset`` and ``changes`` (each ``key=value``) make the recipe to start from. ``floor`` is the
    SSIM in [0,1] to the clean image from which on an image counts; ``seed`` is the search's own,
    the recipe keeps its seed.
    """

    tuning: tuple[str, ...]
    search: Search
    out: Path
    preset: str = "fast"
    changes: tuple[str, ...] = ()
    trials: int = 50
    floor: float = 0.9
    seed: int = 0


def recipe_with(settings: TuningSettings, values: Mapping[str, Any]) -> Recipe:
    """The recipe to start from with ``values`` put in."""
    return load_latent_recipe(settings.preset, [*settings.changes, *(f"{key}={_toml(values[key])}" for key in values)])


def attack_settings(settings: TuningSettings, recipe: Recipe | None = None) -> AttackSettings:
    """The attack with ``recipe``, or with the one to start from."""
    return settings_with(settings, recipe or recipe_with(settings, {}), settings.out)


def check_study(settings: TuningSettings) -> None:
    """Refuse, before anything is loaded, numbers, roles and search spaces that cannot be meant."""
    if not 1 <= settings.trials <= 100_000:
        raise UserError(f"`trials` is {settings.trials}; it must lie between 1 and 100000")
    if not 0 <= settings.floor <= 1:
        raise UserError(f"`floor` is {settings.floor}; it is an SSIM between 0 and 1")
    if settings.seed < 0:
        raise UserError(f"`seed` is {settings.seed}; it must not be negative")
    check_surrogates(settings.surrogates)
    if not settings.tuning:
        raise UserError("no classifier decides; give at least one in `tuning`, such as lab:mobilenet")
    check_tuning(settings.surrogates, settings.tuning)
    check_settings(attack_settings(settings))
    if not settings.search:
        raise RecipeError("the search space is empty")
    check_values(settings, lambda tried: check_settings(attack_settings(settings, tried)))


def check_values(settings: TuningSettings, check: Callable[[Recipe], None]) -> None:
    """Build and ``check`` a recipe for both ends of every range and for every choice,
    the other keys left standing."""
    standing = standing_values(recipe_with(settings, {}), settings.search)
    for key, space in settings.search.items():
        for value in space.ends:
            try:
                tried = recipe_with(settings, standing | {key: value})
                Method.of(tried)
                check(tried)
            except UserError as error:
                raise RecipeError(f"search space: {key} = {_toml(value)} cannot be used: {error}") from None


def _toml(value: object) -> str:
    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
