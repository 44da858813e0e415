"""`attnshift show`: a recipe to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from attnshift.cli.completion import recipes
from attnshift.cli.options import Changes, expand_options

__all__ = ["show_recipe"]


@expand_options
def show_recipe(
    *,
    preset: Annotated[str, typer.Argument(help="Preset, baseline or recipe file.", autocompletion=recipes)],
    changes: Changes = (),
) -> None:
    """Print a recipe as a TOML file to start from, with each key's meaning, range and default."""
    from attnshift.recipes.reading import load_recipe

    recipe = load_recipe(preset, changes)
    from attnshift.recipes.written import recipe_text

    print(recipe_text(recipe), end="")
