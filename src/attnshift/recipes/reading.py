"""Recipes by name or from a file, with settings applied;
of attacks on latents and on pixels alike."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, time
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from attnshift.baselines import BASELINES
from attnshift.baselines.diffusion import DiffusionBaseline
from attnshift.baselines.kinds import Baseline, BudgetBaseline
from attnshift.errors import RecipeError
from attnshift.metrics import budget_metric
from attnshift.recipes.schema import BaselineRecipe, BaselineSection, Recipe
from attnshift.recipes.values import DEEPEST, check_depth, read_values, too_deep
from attnshift.registry import build, describe

__all__ = [
    "baseline_of",
    "load_latent_recipe",
    "load_recipe",
    "override",
    "parse_recipe",
    "recipe_of",
]

_Recipe = TypeVar("_Recipe", bound=BaseModel)


def load_recipe(source: str, settings: Iterable[str] = ()) -> Recipe | BaselineRecipe:
    """The preset or baseline called ``source``, or the TOML file at that path, with
    ``key.path=value`` settings.

    A file with a section ``[baseline]`` describes a baseline;
    its recipe comes back with all of its options. A file may extend another recipe
    (``recipes.values.read_values``).
    """
    return recipe_of(override(read_values(source), settings), source)


def load_latent_recipe(source: str, settings: Iterable[str] = ()) -> Recipe:
    """As ``load_recipe``, for what attacks latents alone:
    a recipe of an attack on pixels is a ``RecipeError``."""
    recipe = load_recipe(source, settings)
    if isinstance(recipe, BaselineRecipe):
        raise RecipeError(f"recipe {source} attacks pixels, and a recipe of an attack on latents is wanted here")
    return recipe


def recipe_of(values: Mapping[str, Any], source: str) -> Recipe | BaselineRecipe:
    """``values`` as a recipe of the kind that they describe;
    ``source`` says in errors where they come from."""
    if "peer" in values and "baseline" not in values:
        raise RecipeError(f"recipe {source}: the section [peer] is called [baseline] now; rename it")
    if "baseline" not in values:
        return parse_recipe(values, source, Recipe)
    recipe = parse_recipe(values, source, BaselineRecipe)
    baseline = build(BASELINES, recipe.baseline.attack, recipe.baseline.options, ("attack",))
    complete = BaselineSection(attack=recipe.baseline.attack, **asdict(baseline))
    return recipe.model_copy(update={"baseline": complete})


def baseline_of(recipe: BaselineRecipe) -> Baseline | DiffusionBaseline:
    """The attack that ``recipe`` describes; a ``RecipeError`` where its budget is none for it."""
    name, budget = recipe.baseline.attack, recipe.budget
    baseline: Baseline | DiffusionBaseline = build(BASELINES, name, recipe.baseline.options, ("attack",))
    if isinstance(baseline, BudgetBaseline):
        if not budget.given:
            raise RecipeError(
                f"baseline '{name}' optimises a budget, and recipe {recipe.name} has none; "
                "give it one, such as ssim = 0.95"
            )
        flat = [metric for metric in budget.limits if not budget_metric(metric).differentiable]
        if flat:
            raise RecipeError(
                f"baseline '{name}' follows the gradient of its budget, and {flat[0]} has no useful one; "
                "take another metric, such as ssim"
            )
    return baseline


def parse_recipe(values: Mapping[str, Any], source: str, kind: type[_Recipe] = Recipe) -> _Recipe:
    """``values`` as a recipe of that ``kind``,
    or a ``RecipeError`` that says where they are none."""
    check_depth(values, f"recipe {source}")
    try:
        # JSON mode: arrays may become tuples, everything else stays strict.
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise RecipeError(f"recipe {source}: {describe(error, kind)}") from None
    except TypeError:
        # TOML knows one kind of value that JSON does not.
        raise RecipeError(f"recipe {source}: {_date(values)}: a recipe cannot hold dates or times") from None


def _date(values: Mapping[str, Any]) -> str:
    """Dotted key of the first date or time in ``values``, or nothing."""
    for key, value in values.items():
        if isinstance(value, date | time):
            return key
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inner, Mapping) and (below := _date({str(part): each for part, each in inner.items()})):
            return f"{key}.{below}"
    return ""


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``optimiser.iterations=10``-like settings; a value is read as TOML,
    and as text where it is none.

    >>> override({"optimiser": {"iterations": 30}}, ["optimiser.iterations=10"])
    {'optimiser': {'iterations': 10}}
    """
    changed = _copied(values)
    for setting in settings:
        key, separator, value = setting.partition("=")
        *parents, last = (part.strip() for part in key.split("."))
        if not separator or not all((*parents, last)):
            raise RecipeError(f"`changes` {setting}: expected key=value, as in optimiser.iterations=10")
        if len(parents) >= DEEPEST:
            raise too_deep(f"`changes` {setting:.80}")
        if not _is_unicode(setting):
            raise RecipeError(f"`changes` {setting}: this is not UTF-8 text")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise RecipeError(f"`changes` {setting}: {parent} is a value, not a section")
        place[last] = _read(value.strip())
    return changed


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _read(value: str) -> Any:
    if value == "{}":
        # A prompt that is nothing but the class name; an empty table would say nothing.
        return value
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value
    # A line break could start another key.
    return read["value"] if len(read) == 1 else value


def _is_unicode(text: str) -> bool:
    """Whether ``text`` can be written: bytes of a command line that are not UTF-8 come
    as halves of a surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
