"""An interruption changes nothing, wherever it comes, and a study can be made longer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pytest

from attnshift.errors import RunError
from attnshift.studies import tuning
from attnshift.studies.tuning import bench, tune_recipe
from attnshift.studies.tuning.study import quiet, stored_study
from small_runs import SHORT_PATH, contents
from small_studies import RATE, SEARCH, Make, interrupted_after, silent, without_seconds

if TYPE_CHECKING:
    from attnshift.recipes.schema import Recipe


@pytest.mark.heavy
def test_an_interrupted_study_is_continued(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real attacks, stopped in the middle of the second trial."""
    settings = make(limit=2, batch=1, changes=("optimiser.iterations=1", "finish.keep=last", SHORT_PATH))
    undisturbed = tune_recipe(replace(settings, out=tmp_path / "undisturbed"), silent)
    with monkeypatch.context() as patch:
        # Two images in batches of one: two calls per trial.
        patch.setattr(bench, "run_attack", interrupted_after(3, bench.run_attack))
        with pytest.raises(KeyboardInterrupt):
            tune_recipe(settings, silent)
    numbers: list[int] = []
    result = tune_recipe(settings, lambda number, *_: numbers.append(number))
    assert numbers == [1]
    assert without_seconds(result) == without_seconds(undisturbed)
    assert (settings.out / "best.toml").read_bytes() == undisturbed.recipe.read_bytes()


@pytest.mark.heavy
@pytest.mark.parametrize("place", ["in a trial", "after a trial", "between database and table"])
def test_where_it_is_interrupted_does_not_matter(
    make: Make, instant: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Again and again. 13 trials, so that the last ones are proposed from those before them."""
    undisturbed = tune_recipe(make(trials=13, out=tmp_path / "undisturbed"), silent)
    settings = make(trials=13)
    for after in (0, 1, 8):
        with monkeypatch.context() as patch:
            progress = silent
            if place == "in a trial":
                patch.setattr(bench, "_attack", interrupted_after(after, bench._attack))
            elif place == "after a trial":
                progress = interrupted_after(after, silent)
            else:
                patch.setattr(tuning, "write_results", interrupted_after(after, tuning.write_results))
            with pytest.raises(KeyboardInterrupt):
                tune_recipe(settings, progress)
        # Optuna draws from no state of the process either.
        numpy.random.seed(after)
        random.seed(after)
    assert without_seconds(tune_recipe(settings, silent)) == without_seconds(undisturbed)


@pytest.mark.heavy
def test_a_trial_that_another_tool_left_running_is_no_hole(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    undisturbed = tune_recipe(make(trials=4, out=tmp_path / "undisturbed"), silent)
    settings = make(trials=4)
    tune_recipe(replace(settings, trials=2), silent)
    with quiet(), stored_study(settings.out / "study.db") as stored:
        stored.ask({RATE: SEARCH[RATE].distribution()})
    result = tune_recipe(settings, silent)
    assert without_seconds(result) == without_seconds(undisturbed)
    assert [trial.number for trial in result.trials] == [0, 1, 2, 3]


def test_a_second_process_is_noticed(make: Make, instant: list[Recipe]) -> None:
    settings = make()

    def other_process(*_: object) -> None:
        with stored_study(settings.out / "study.db") as stored:
            stored.add_trial(stored.trials[0])

    with pytest.raises(RunError, match="another process adds trials"):
        tune_recipe(settings, other_process)


@pytest.mark.heavy
def test_nothing_of_an_unfinished_trial_is_stored(
    make: Make, instant: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.trial import TrialState

    settings = make(trials=4)
    with monkeypatch.context() as patch:
        patch.setattr(bench, "_attack", interrupted_after(2, bench._attack))
        with pytest.raises(KeyboardInterrupt):
            tune_recipe(settings, silent)
    with quiet(), stored_study(settings.out / "study.db") as stored:
        assert [trial.state for trial in stored.trials] == [TrialState.COMPLETE] * 2


@pytest.mark.heavy
def test_more_trials_go_on_from_those_that_are_there(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    at_once = tune_recipe(make(trials=11, out=tmp_path / "once"), silent)
    tune_recipe(make(trials=5), silent)
    assert without_seconds(tune_recipe(make(trials=11), silent)) == without_seconds(at_once)
    before = contents(make().out)
    assert len(tune_recipe(make(trials=3), silent).trials) == 11, "fewer trials are no reason to forget some"
    assert {name: digest for name, digest in contents(make().out).items() if name != "study.db"} == {
        name: digest for name, digest in before.items() if name != "study.db"
    }


@pytest.mark.heavy
def test_another_seed_searches_elsewhere(make: Make, instant: list[Recipe], tmp_path: Path) -> None:
    one, two = (tune_recipe(make(trials=3, seed=seed, out=tmp_path / str(seed)), silent) for seed in (0, 1))
    assert one.trials[0].values == two.trials[0].values
    assert one.trials[1].values != two.trials[1].values
