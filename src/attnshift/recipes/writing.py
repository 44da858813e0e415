"""Recipes as TOML, to read and to use again."""

from __future__ import annotations

from typing import Any

import tomli_w

from attnshift.recipes.schema import BaselineRecipe, Recipe

__all__ = ["recipe_toml"]


def recipe_toml(recipe: Recipe | BaselineRecipe) -> str:
    """The complete ``recipe``; ``load_recipe`` reads an equal one of it."""
    return tomli_w.dumps(_without_none(recipe.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    """``value`` without keys that stand for nothing, which TOML cannot say."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return value
