"""Two ways to say how far an attack goes: a factor on its steps,
or the naturalness that it keeps."""

from __future__ import annotations

import math
from dataclasses import asdict

from attnshift.errors import RecipeError
from attnshift.recipes.reading import baseline_of, recipe_of
from attnshift.recipes.schema import BaselineRecipe, BudgetSection, Recipe

__all__ = ["at_strength", "parse_budget", "within_budget"]


def at_strength(recipe: Recipe | BaselineRecipe, strength: float) -> Recipe | BaselineRecipe:
    """``recipe`` with ``strength`` times its learning rate and its pull towards a boundary,
    or a baseline with so many times its lengths.

    Either scales how far every step goes; at 1 the recipe is as it stands.
    """
    if strength == 1:
        return recipe
    values = recipe.model_dump(mode="json")
    values["name"] = f"{recipe.name}@{strength:g}"
    if isinstance(recipe, Recipe):
        for section in ("optimiser", "pixels"):
            values[section]["learning_rate"] *= strength
        values["path"]["boundary"] = min(1.0, values["path"]["boundary"] * strength)
    else:
        baseline = baseline_of(recipe).scaled(strength)
        values["baseline"] = {"attack": recipe.baseline.attack, **asdict(baseline)}
    return recipe_of(values, values["name"])


def parse_budget(text: str) -> BudgetSection:
    """The budget written as METRIC=LIMIT,…, such as ssim=0.95; a ``RecipeError`` where it is not.

    >>> str(parse_budget("ssim=0.95,lpips-squeeze=0.05"))
    'ssim=0.95,lpips-squeeze=0.05'
    """
    limits: dict[str, float] = {}
    for part in text.split(","):
        metric, separator, limit = part.partition("=")
        try:
            value = float(limit)
        except ValueError:
            value = math.nan
        if not (metric and separator and math.isfinite(value)):
            raise RecipeError(f"`budget` is {text}; expected METRIC=LIMIT, such as ssim=0.95, or several after commas")
        if metric in limits:
            raise RecipeError(f"`budget` is {text}; give {metric} once")
        limits[metric] = value
    (metric, limit), *rest = limits.items()
    return BudgetSection(metric=metric, limit=limit, also=dict(rest))


def within_budget(recipe: Recipe | BaselineRecipe, budget: BudgetSection) -> Recipe | BaselineRecipe:
    """``recipe`` within ``budget``, in place of its own; an early finish,
    which would leave some of it, is off."""
    values = recipe.model_dump(mode="json") | {"budget": budget.model_dump(mode="json")}
    values["name"] = f"{recipe.name}@{budget}"
    if isinstance(recipe, Recipe):
        values["finish"]["early"] = False
    return recipe_of(values, values["name"])
