"""How far an attack goes, as one factor."""

from __future__ import annotations

from attnshift.recipes.reading import recipe_of
from attnshift.recipes.schema import BaselineRecipe, Recipe

__all__ = ["at_strength"]


def at_strength(recipe: Recipe | BaselineRecipe, strength: float) -> Recipe | BaselineRecipe:
    """``recipe`` with ``strength`` times its learning rate, or a baseline with so many times its radius and step size.

    Either scales how far every step goes; at 1 the recipe is as it stands.
    """
    if strength == 1:
        return recipe
    values = recipe.model_dump(mode="json")
    values["name"] = f"{recipe.name}@{strength:g}"
    if isinstance(recipe, Recipe):
        values["optimiser"]["learning_rate"] *= strength
    else:
        for key in ("epsilon", "step_size"):
            if values["baseline"].get(key) is not None:
                values["baseline"][key] *= strength
    return recipe_of(values, values["name"])
