"""Keys of recipes: the page that lists them, and recipes that are written out with them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from attnshift.baselines import BASELINES
from attnshift.errors import RecipeError
from attnshift.recipes.page import recipes_page
from attnshift.recipes.presets import preset_names
from attnshift.recipes.reading import load_recipe, recipe_of
from attnshift.recipes.written import recipe_text

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_is_that_of_the_schema() -> None:
    renew = "run: python -m attnshift.recipes.page > docs/recipes.md"
    assert PAGE.read_text(encoding="utf-8") == recipes_page(), renew


def test_every_key_has_a_meaning() -> None:
    rows = [line.strip("| ").split(" | ") for line in recipes_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 250
    assert [row for row in rows if not row[-1].strip() or len(row) < 4] == []


@pytest.mark.parametrize("name", [*preset_names(), *(name for name, entry in BASELINES.items() if not entry.package)])
def test_a_recipe_that_is_written_out_is_the_same_when_read(name: str) -> None:
    recipe = load_recipe(name)
    text = recipe_text(recipe)
    assert recipe_of(tomllib.loads(text), name) == recipe
    assert max(len(line) for line in text.splitlines() if line.startswith("# ") and "=" not in line) <= 100


def test_written_values_keep_their_quotes_and_say_what_they_may_be() -> None:
    changes = ['summary=a "b" # c\\d', 'classification.fusion="weighted"', "classification.fusion_options.scale=raw"]
    changes += ['classification.fusion_options.weights={"timm:a.b" = 2.0}', "terms.entropy.weight=0.5", "seed=7"]
    recipe = load_recipe("strong", changes)
    text = recipe_text(recipe)
    assert recipe_of(tomllib.loads(text), "strong") == recipe
    assert "# Number of updates. Whole number, 1 to 10000; default 30.\niterations = 24\n" in text
    assert "\n# dropout = 0.0\n" in text


def test_an_option_that_a_part_does_not_have_is_refused() -> None:
    recipe = load_recipe("strong", ["classification.kappa=1.0"])
    with pytest.raises(RecipeError, match="classification loss 'cross_entropy': kappa is none of its options"):
        recipe_text(recipe)
