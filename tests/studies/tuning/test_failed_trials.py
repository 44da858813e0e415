"""A recipe that cannot be carried out is a failed trial with its reason; an error of ours stops the study."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from attnshift.errors import RecipeError, RunError
from attnshift.studies.tuning import Choices, Search, bench, tune_recipe
from small_studies import LOSS, Make, silent

if TYPE_CHECKING:
    from attnshift.attack.method import Method
    from attnshift.recipes.schema import Recipe


def test_a_recipe_that_cannot_be_carried_out_is_a_failed_trial(
    make: Make, instant: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = bench._attack

    def picky(shared: Any, method: Method) -> Tensor:
        if method.recipe.classification.loss == "margin":
            raise RecipeError("no margins today")
        return attack(shared, method)

    monkeypatch.setattr(bench, "_attack", picky)
    settings = make(trials=8)
    calls: list[float | None] = []
    result = tune_recipe(settings, lambda number, total, score, best: calls.append(score))
    failed = [trial for trial in result.trials if trial.grade is None]
    assert {trial.values[LOSS] for trial in failed} == {"margin"}
    assert {trial.values[LOSS] for trial in result.trials if trial.grade} == {"cross_entropy"}
    assert {trial.reason for trial in failed} == {"no margins today"}
    assert [score is None for score in calls] == [trial.grade is None for trial in result.trials]
    with (settings.out / "trials.csv").open(newline="") as stream:
        assert [row["reason"] for row in csv.DictReader(stream)] == [trial.reason for trial in result.trials]


@pytest.mark.heavy
def test_values_that_do_not_go_together_are_a_failed_trial(make: Make) -> None:
    """Each is possible with the recipe's own other value."""
    search: Search = {
        "diffusion.denoising_steps": Choices(choices=(2, 15)),
        "diffusion.schedule_steps": Choices(choices=(20, 10)),
    }
    settings = make(search=search, changes=("optimiser.iterations=1", "diffusion.denoising_steps=2"), trials=8, limit=1)
    result = tune_recipe(settings, silent)
    pair = {"diffusion.denoising_steps": 15, "diffusion.schedule_steps": 10}
    assert pair in [trial.values for trial in result.trials]
    for trial in result.trials:
        impossible = trial.values == pair
        assert (trial.grade is None) == impossible
        assert ("denoising_steps" in trial.reason) == impossible


def test_images_that_are_not_finite_are_a_failed_trial(
    make: Make, instant: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = bench._attack
    monkeypatch.setattr(bench, "_attack", lambda *each: attack(*each) * (torch.nan if len(instant) == 1 else 1))
    result = tune_recipe(make(), silent)
    assert [trial.grade is None for trial in result.trials] == [True, False]
    assert "not finite" in result.trials[0].reason


def test_a_study_in_which_everything_fails_says_why(
    make: Make, instant: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Tensor:
        raise RecipeError("no attacks today")

    monkeypatch.setattr(bench, "_attack", refuse)
    settings = make()
    with pytest.raises(RunError, match="every trial failed, the first because no attacks today"):
        tune_recipe(settings, silent)
    assert not (settings.out / "best.toml").exists()


@pytest.mark.heavy
def test_an_error_of_ours_is_not_a_failed_trial(
    make: Make, instant: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> Tensor:
        raise ZeroDivisionError

    settings = make()
    with monkeypatch.context() as patch:
        patch.setattr(bench, "_attack", break_down)
        with pytest.raises(ZeroDivisionError):
            tune_recipe(settings, silent)
    assert len(tune_recipe(settings, silent).trials) == 2
