"""Recipes that extend others: what they take over, and what is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnshift.errors import RecipeError
from attnshift.recipes.presets import preset_names
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.schema import BaselineRecipe, Recipe


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", preset_names())
def test_a_file_takes_over_all_but_the_names_of_a_preset(name: str, tmp_path: Path) -> None:
    extended = load_recipe(write(tmp_path / "mine.toml", f'name = "mine"\nextends = "{name}"'))
    preset = load_recipe(name)
    assert extended == preset.model_copy(update={"name": "mine", "summary": ""})


def test_own_values_go_first_level_by_level(tmp_path: Path) -> None:
    write(tmp_path / "bases" / "deep.toml", 'name = "deep"\nextends = "strong"\nseed = 3\ntuned_on = ["a"]\n')
    write(
        tmp_path / "bases" / "middle.toml",
        'name = "middle"\nextends = "deep.toml"\nexpectation.draws = 8\n[terms.entropy]\nweight = 0.5\ndropout = 0.1',
    )
    mine = write(
        tmp_path / "mine.toml",
        'name = "mine"\nextends = "bases/middle.toml"\ntuned_on = ["b", "a"]\n'
        "[expectation.transforms.scale_and_shift]\nscale = [0.5, 1.5]\n[terms.entropy]\ndropout = 0.2\n",
    )
    recipe, strong = load_recipe(mine, ["optimiser.iterations=5"]), load_recipe("strong")
    assert isinstance(recipe, Recipe)
    assert isinstance(strong, Recipe)
    assert (recipe.name, recipe.seed, recipe.optimiser.iterations) == ("mine", 3, 5)
    assert recipe.tuned_on == (*strong.tuned_on, "a", "b")
    assert list(recipe.expectation.transforms) == list(strong.expectation.transforms)
    assert recipe.expectation.draws == 8
    assert recipe.expectation.transforms["scale_and_shift"].options == {"scale": [0.5, 1.5], "shift": 0.2}
    assert (recipe.terms["entropy"].weight, recipe.terms["entropy"].options) == (0.5, {"dropout": 0.2})


def test_a_baseline_can_be_extended(tmp_path: Path) -> None:
    mine = load_recipe(write(tmp_path / "mine.toml", 'name = "mine"\nextends = "mifgsm"\nbaseline.steps = 7'))
    assert isinstance(mine, BaselineRecipe)
    assert mine.baseline.options == load_recipe("mifgsm", ["baseline.steps=7"]).baseline.options  # type: ignore[union-attr]


REFUSED = {
    "unknown": ('extends = "strnog"', "mine.toml: extends: unknown preset 'strnog'; did you mean 'strong'?; known: "),
    "no text": ("extends = 3", "mine.toml: extends is 3; give a preset's name or the path of a TOML file"),
    "itself": ('extends = "mine.toml"', "extends itself: "),
    "a circle": ('extends = "a/b.toml"', "a/b.toml -> "),
    "not there": ('extends = "gone.toml"', "gone.toml: no such recipe file; give a preset's name or the path"),
    "outside": ('extends = "../out.toml"', "extends is ../out.toml, outside of the folder "),
    "outside, absolute": ('extends = "/etc/passwd.toml"', "extends is /etc/passwd.toml, outside of the folder "),
    "outside by a link": ('extends = "link.toml"', "extends is link.toml, outside of the folder "),
    "a null": ('extends = "a\\u0000.toml"', "which is no path"),
    "another kind": ('extends = "strong"\nbaseline.attack = "pgd"', "recipe mine.toml: "),
    "deeper": ('extends = "deep.toml"', "more than 12 tables or lists lie within each other"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message = REFUSED[case]
    folder = tmp_path / "recipes"
    write(tmp_path / "out.toml", 'name = "out"')
    write(folder / "a" / "b.toml", 'name = "b"\nextends = "../mine.toml"')
    write(folder / "deep.toml", f'name = "deep"\nseed = {"[" * 20}{"]" * 20}')
    (folder / "link.toml").symlink_to(tmp_path / "out.toml")
    monkeypatch.chdir(folder)
    write(Path("mine.toml"), f'name = "mine"\n{text}')
    with pytest.raises(RecipeError) as caught:
        load_recipe("mine.toml")
    assert message in str(caught.value).replace(os.sep, "/")
    assert "\n" not in str(caught.value)


def test_a_file_that_extends_needs_a_name_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="name: Field required"):
        load_recipe(write(tmp_path / "mine.toml", 'extends = "strong"'))
