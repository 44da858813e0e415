"""A baseline's recipe: complete, strict, and scaled by its strength."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import tomli_w

from attnshift.baselines import BASELINES
from attnshift.baselines.pixel import MIFGSM
from attnshift.errors import RecipeError
from attnshift.execution.work.pixels import PixelWork
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.recipes.strength import at_strength

BAD = {
    "an option that it has not": ("baseline.epsilom=0.1", "baseline 'mifgsm': epsilom: "),
    "a radius of 0": ("baseline.epsilon=0", "baseline 'mifgsm': epsilon: .*greater than 0"),
    "steps as a boolean": ("baseline.steps=true", "baseline 'mifgsm': steps: "),
    "an unknown baseline": ("baseline.attack=mifsgm", "unknown baseline 'mifsgm'; did you mean 'mifgsm'"),
    "a section of our attack": ("optimiser.iterations=3", "recipe mifgsm: optimiser: "),
    "a negative seed": ("seed=-1", "recipe mifgsm: seed: "),
}


def baseline(source: str, *settings: str) -> BaselineRecipe:
    recipe = load_recipe(source, settings)
    assert isinstance(recipe, BaselineRecipe)
    return recipe


def test_a_file_with_the_former_section_is_told_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[peer]\nattack = "pgd"\n', encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert str(caught.value) == f"recipe {path}: the section [peer] is called [baseline] now; rename it"


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_has_a_complete_recipe(name: str) -> None:
    recipe = baseline(name, "budget={metric='ssim', limit=0.95}")
    assert recipe.name == recipe.baseline.attack == name
    attack = PixelWork.of(recipe).attack
    options = asdict(attack).items()
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in options} == json.loads(
        json.dumps(recipe.baseline.options)
    )
    assert attack == BASELINES[name].load()()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "optimises a budget, and recipe alma_budget has none; give it one, such as ssim = 0.95"),
        (
            ("budget={metric='linf', limit=0.05}",),
            "follows the gradient of its budget, and linf has no useful one; take another metric, such as ssim",
        ),
    ],
)
def test_a_baseline_that_optimises_a_budget_needs_one_with_a_slope(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        PixelWork.of(baseline("alma_budget", *settings))
    assert str(caught.value) == f"baseline 'alma_budget' {message}"


def test_presets_are_recipes_of_our_own() -> None:
    assert isinstance(load_recipe("quick", ["seed=3"]), Recipe)


def test_a_file_may_describe_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[baseline]\nattack = "mifgsm"\nepsilon = 0.02\n')
    recipe = baseline(str(path), "baseline.steps=4")
    assert PixelWork.of(recipe).attack == MIFGSM(epsilon=0.02, steps=4)
    values = recipe.model_dump(mode="json")
    values["baseline"] = {key: value for key, value in values["baseline"].items() if value is not None}
    path.write_text(tomli_w.dumps(values))
    assert baseline(str(path)) == recipe, "what a run writes down can be run again"


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_refused_in_a_line(name: str) -> None:
    setting, message = BAD[name]
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("mifgsm", [setting])
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_compared_with_presets_and_baseline() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'mifgsm'.*strong.*pgd"):
        load_recipe("mifgms")


def test_strength_scales_the_radius_and_a_given_step() -> None:
    half = at_strength(baseline("pgd"), 0.5)
    assert isinstance(half, BaselineRecipe)
    assert half.name == "pgd@0.5"
    assert half.baseline.options["epsilon"] == pytest.approx(4 / 255)
    assert half.baseline.options["step_size"] == pytest.approx(1 / 255)
    whole = baseline("mifgsm")
    assert at_strength(whole, 1.0) is whole
    half = at_strength(whole, 0.5)
    assert isinstance(half, BaselineRecipe)
    assert half.baseline.options | {"epsilon": 16 / 255} == whole.baseline.options
    with pytest.raises(RecipeError, match="epsilon"):
        at_strength(whole, 100.0)
    half = at_strength(baseline("ppgd"), 0.5)
    assert isinstance(half, BaselineRecipe)
    assert half.baseline.options["bound"] == 0.25
    with pytest.raises(RecipeError, match="has no radius to scale; change the limit of its budget"):
        at_strength(baseline("alma_budget", "budget={metric='ssim', limit=0.95}"), 0.5)
