"""What a person chooses, as a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attnshift.errors import RecipeError
from attnshift.recipes.reading import load_latent_recipe, load_recipe
from attnshift.recipes.writing import recipe_toml
from attnshift.studio.choices import LIMITS, NO_BUDGET, AttackChoices, chosen_recipe, knobs, presets, template_of


def as_preset(name: str) -> AttackChoices:
    """The choices that the page makes when somebody takes a preset and changes nothing."""
    recipe = load_latent_recipe(name)
    return AttackChoices(
        preset=name,
        class_name="mug",
        prompt=recipe.prompt.prompt("mug").text,
        metric=recipe.budget.metric,
        limit=recipe.budget.limit,
        iterations=recipe.optimiser.iterations,
        classification=recipe.classification.weight,
        terms={each.name: each.weight for each in knobs(recipe)},
    )


@pytest.mark.parametrize("name", presets())
def test_a_preset_that_nobody_changes_is_the_preset(name: str) -> None:
    assert chosen_recipe(as_preset(name)) == load_latent_recipe(name)


def test_every_choice_reaches_the_recipe_and_its_file_gives_it_back(tmp_path: Path) -> None:
    choices = replace(
        as_preset("fast"),
        prompt="a red mug, on a table",
        metric="haarpsi",
        limit=0.9,
        iterations=7,
        classification=2.0,
        terms={"contrast": 0.5, "entropy": 0.0},
        seed=4,
        masked=True,
    )
    recipe = chosen_recipe(choices)
    assert recipe.name == "fast-studio"
    assert (recipe.prompt.template, recipe.seed) == ("a red {}, on a table", 4)
    assert recipe.budget.limits == {"haarpsi": 0.9}
    assert (recipe.optimiser.iterations, recipe.classification.weight) == (7, 2.0)
    assert {name: term.weight for name, term in recipe.terms.items()} == {"contrast": 0.5}
    assert recipe.optimiser.balance == "share"
    assert (recipe.mask.source, recipe.mask.paste_back) == ("given", True)
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(str(file)) == recipe


def test_a_budget_in_place_of_an_early_finish() -> None:
    assert chosen_recipe(replace(as_preset("quick"), metric="ssim", limit=0.9)).finish.early is False
    assert not chosen_recipe(replace(as_preset("fast"), metric=NO_BUDGET)).budget.given


def test_sliders_offer_terms_that_can_be_weighed_against_each_other() -> None:
    shares = {each.name: each for each in knobs(load_latent_recipe("fast"))}
    assert all(each.offered and each.weight == 0 for each in shares.values())
    published = {each.name: each for each in knobs(load_latent_recipe("diffattack"))}
    assert {name for name, each in published.items() if each.offered} == {"variance", "self_attention"}
    assert published["variance"].highest == 3 * published["variance"].weight
    assert not any(each.offered for each in knobs(load_latent_recipe("pixels")))


@pytest.mark.parametrize(
    ("prompt", "name", "message"),
    [
        ("a photo of a cup", "mug", "does not name the class"),
        ("a photo of mugs", "mug", "does not name the class"),
        ("", "mug", "does not name the class"),
        ("a mug {}", "mug", "holds {}"),
    ],
)
def test_a_prompt_without_its_class_is_refused(prompt: str, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        template_of(prompt, name)


def test_the_usual_limit_lies_in_its_range() -> None:
    assert all(each.low <= each.usual <= each.high for each in LIMITS.values())
