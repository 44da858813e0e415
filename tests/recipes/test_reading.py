"""Recipes: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.attack.method import Method
from attnshift.errors import RecipeError
from attnshift.recipes.presets import preset_names, preset_summary
from attnshift.recipes.reading import load_recipe, override


@pytest.mark.parametrize("name", preset_names())
def test_preset_loads_and_builds(name: str) -> None:
    recipe = load_recipe(name)
    method = Method.of(recipe)
    assert recipe.name == name
    assert recipe.summary == preset_summary(name) != ""
    assert set(method.objective.terms) == set(recipe.terms)
    assert [weighted.weight for weighted in method.objective.terms.values()] == [
        section.weight for section in recipe.terms.values()
    ]


def test_baseline_holds_the_published_numbers() -> None:
    recipe = load_recipe("diffattack")
    diffusion, optimiser = recipe.diffusion, recipe.optimiser
    assert (diffusion.schedule_steps, diffusion.denoising_steps, diffusion.guidance) == (20, 5, 2.5)
    assert (diffusion.pairing, diffusion.encoding, diffusion.residual) == ("compat", "sample", False)
    assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.iterations) == (0.01, 0.01, 30)
    weights = {name: section.weight for name, section in recipe.terms.items()}
    assert weights == {"variance": 10000.0, "self_attention": 100.0}
    assert (recipe.classification.loss, recipe.classification.weight) == ("cross_entropy", 10.0)
    assert recipe.finish.keep == "last"
    tuning = Method.of(recipe).reconstruction
    assert sum(tuning.updates + tuning.updates_per_step * step for step in range(5)) == 70  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimiser.iteration=10", r"recipe quick: optimiser\.iteration: Extra inputs are not permitted \(got 10\)"),
        ("optimizer.iterations=10", "recipe quick: optimizer: Extra inputs are not permitted"),
        ("optimiser.iterations=true", r"optimiser\.iterations: .*integer \(got True\)"),
        ("optimiser.iterations=10.5", r"optimiser\.iterations: .*integer.*got 10\.5"),
        ("optimiser.iterations=ten", r"optimiser\.iterations: .*integer \(got 'ten'\)"),
        ("optimiser.iterations=0", r"optimiser\.iterations: .*greater than or equal to 1"),
        ("optimiser.learning_rate=inf", r"optimiser\.learning_rate: .*finite"),
        ("optimiser.learning_rate=nan", r"optimiser\.learning_rate: .*finite"),
        ("finish.after=1000", r"recipe quick: .*finish\.after is 1000 and cannot exceed optimiser.iterations"),
        ("budget.metric=ssim", "recipe quick: budget: .*limit goes with a metric, and a metric with a limit"),
        ("budget={metric='sim', limit=0.9}", "unknown metric 'sim'; did you mean 'ssim'"),
        ("budget.also={ssim=0.9}", "recipe quick: budget: .*also adds to metric and limit"),
        ("budget={metric='ssim', limit=0.9, also={ssim=0.8}}", "also holds ssim, which metric names already"),
        ("budget={metric='ssim', limit=0.9, also={sim=0.8}}", "unknown metric 'sim'; did you mean 'ssim'"),
        (
            "budget={metric='ssim', limit=0.9}",
            r"recipe quick: .*finish\.early .*; leave finish\.early or budget out",
        ),
        ("diffusion.residual=1", r"diffusion\.residual: .*boolean \(got 1\)"),
        ('diffusion.residual="False"', r"diffusion\.residual: .*boolean"),
        ("diffusion.pairing=alinged", r"diffusion\.pairing: .*'aligned' or 'compat' \(got 'alinged'\)"),
        ("diffusion.gradient_steps=-1", r"diffusion\.gradient_steps: .*greater than or equal to 0"),
        (
            "diffusion.gradient_steps=5",
            r"recipe quick: diffusion: .*gradient_steps is 5 and cannot exceed denoising_steps, which is 4; 0 goes",
        ),
        ("terms.variance.weight=-1.0", r"terms\.variance\.weight: .*greater than or equal to 0"),
        ("terms.variance.weight=inf", r"terms\.variance\.weight: .*finite"),
        ("seed=2024-01-01", "recipe quick: seed: a recipe cannot hold dates or times"),
        ("terms.variance.weight=10:30:00", r"recipe quick: terms\.variance\.weight: a recipe cannot hold dates"),
    ],
)
def test_wrong_value_is_refused_when_loaded(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("quick", [setting])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["terms.varience.weight=1.0"], r"unknown term 'varience'; did you mean 'variance'\?; known: variance, "),
        (["terms.variance.wieght=1.0"], r"term 'variance': wieght: Unexpected keyword argument"),
        (["terms.variance.select.grid=third"], r"term 'variance': select\.grid: .*got 'third'"),
        (["classification.loss=margn"], r"unknown classification loss 'margn'; did you mean 'margin'\?"),
        (["classification.loss=margin", "classification.kappa=inf"], "classification loss 'margin': kappa: .*finite"),
        (["classification.loss=margin", "classification.kappa=true"], "classification loss 'margin': kappa: .*number"),
        (["classification.kappa=1.0"], "classification loss 'cross_entropy': kappa: Unexpected keyword argument"),
        (["classification.fusion=unifrom"], r"unknown fusion rule 'unifrom'; did you mean 'uniform'\?"),
        (["classification.fusion_options.scale=sum"], "fusion rule 'uniform': scale: .*'norm', 'unit' or 'raw'"),
        (["reconstruction.method=offest"], r"unknown reconstruction 'offest'; did you mean 'offset'\?"),
        (["reconstruction.updates=3"], "reconstruction 'offset': updates: Unexpected keyword argument"),
        (["terms.variance.schedule.shape=quadratic"], "schedule of variance: shape: .*got 'quadratic'"),
        (["classification.schedule.window=[0.5]"], "schedule of classification: window"),
        (["prompt.template=a photo"], r"prompt\.template: .*must hold \{\} once.*got 'a photo'"),
        (["prompt.template={} and {}"], r"prompt\.template: .*must hold \{\} once"),
    ],
)
def test_wrong_name_or_option_is_refused_when_built(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Method.of(load_recipe("quick", settings))


@pytest.mark.parametrize("name", ["mug", "{}", "{0}"])
def test_other_braces_of_a_template_or_a_name_are_plain_text(name: str) -> None:
    recipe = load_recipe("quick", ["prompt.template={} on {place} in { braces"])
    assert recipe.prompt.prompt(name).text == f"{name} on {{place}} in {{ braces"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimiser.iterations", "`changes` optimiser.iterations: expected key=value"),
        ("=10", "`changes` =10: expected key=value"),
        ("name.first=x", "`changes` name.first=x: name is a value, not a section"),
        ("optimiser.iterations.count=3", "iterations is a value, not a section"),
    ],
)
def test_setting_that_cannot_be_read_is_refused(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("quick", [setting])


def test_settings_reach_sections_that_the_file_does_not_have() -> None:
    recipe = load_recipe("quick", ["terms.variance.select.steps=[1, 3]", "finish.confidence=0.5", "seed = 7"])
    assert recipe.terms["variance"].options == {"select": {"steps": [1, 3]}}
    assert (recipe.finish.confidence, recipe.seed) == (0.5, 7)


def test_settings_do_not_change_what_they_are_applied_to() -> None:
    values = {"optimiser": {"iterations": 30}}
    assert override(values, ["optimiser.iterations=10", "new.key=text"]) == {
        "optimiser": {"iterations": 10},
        "new": {"key": "text"},
    }
    assert values == {"optimiser": {"iterations": 30}}


def test_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\n[terms.variance]\nweight = 2.0\n')
    assert list(Method.of(load_recipe(str(path))).objective.terms) == ["variance"]
    path.write_text("name = own")
    with pytest.raises(RecipeError, match=r"own\.toml: not valid TOML"):
        load_recipe(str(path))
    path.write_text("")
    with pytest.raises(RecipeError, match=r"name: Field required"):
        load_recipe(str(path))
    with pytest.raises(RecipeError, match=r"absent\.toml: no such recipe file"):
        load_recipe(str(tmp_path / "absent.toml"))


def test_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match=r"unknown preset 'fats'; did you mean 'fast'\?; known: .*diffattack"):
        load_recipe("fats")
